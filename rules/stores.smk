# Sources of graphs become graph stores.


rule stores:
    input:
        [manifest_path(RESULTS, store) for store in study.stores],
    localrule: True


rule store:
    output:
        manifest_path(RESULTS, "{store}"),
    log:
        f"{RESULTS}/stores/{{store}}.log",
    wildcard_constraints:
        store="[A-Za-z0-9_-]+",
    resources:
        **cpu_resources(),
    params:
        spec=store_spec_path(RESULTS, "{store}"),
        out=subpath(output[0], parent=True),
    message:
        "Graph store {wildcards.store}"
    shell:
        'python "$SAGEBENCH_SCRIPTS/build_graph.py" --spec {params.spec:q}'
        " --out {params.out:q} 2>&1 | tee -i {log:q}"
