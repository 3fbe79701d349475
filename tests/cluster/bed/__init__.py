"""The parts of the test cluster: two Slurm nodes and Apptainer on one Debian machine."""
