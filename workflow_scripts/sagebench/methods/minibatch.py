METHOD = "mini-batch training"
