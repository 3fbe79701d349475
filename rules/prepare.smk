# What comes before the trials: the plan, the container image, the graph stores, and what a plan is
# better by: probes and pilots. And the preflight, which checks a machine.


# A table here, plan.csv and plan.html. From the configuration alone, and better from what was
# probed and measured.
rule plan:
    log:
        f"{STUDY}/logs/plan.txt",
    localrule: True
    params:
        study=freezer.path,
        out=f"{STUDY}/plan.csv",
    shell:
        'python "$SAGEBENCH_SCRIPTS/plan.py" --study {params.study:q} --out {params.out:q} 2> {log:q}'


# From its definition, where a cluster's site names one: `make image`.
rule image:
    log:
        f"{RESULTS}/image.log",
    resources:
        **CPU_JOB,
    message:
        f"Container image {study.site.image}"
    shell:
        'python "$SAGEBENCH_SCRIPTS/prepare.py" image --study "$SAGEBENCH_FROZEN_STUDY"'
        " 2>&1 | tee -i {log:q}"


rule stores:
    input:
        [manifest_path(RESULTS, store) for store in study.stores],
    localrule: True


rule store:
    input:
        base_store,
    output:
        manifest_path(RESULTS, "{store}"),
    log:
        f"{RESULTS}/stores/{{store}}.log",
    wildcard_constraints:
        store="[A-Za-z0-9_-]+",
    resources:
        **CPU_JOB,
    params:
        spec=store_spec_path(RESULTS, "{store}"),
        out=subpath(output[0], parent=True),
    message:
        "Graph store {wildcards.store}"
    shell:
        'python "$SAGEBENCH_SCRIPTS/build_graph.py" --spec {params.spec:q}'
        " --out {params.out:q} 2>&1 | tee -i {log:q}"


# What a fanout that ends in -1 reads instead of sampling its last hop, beside the store.
rule aggregate:
    input:
        manifest_path(RESULTS, "{store}"),
    output:
        table_manifest(f"{RESULTS}/stores/{{store}}", "{aggregator}"),
    log:
        f"{RESULTS}/stores/{{store}}.{{aggregator}}.log",
    wildcard_constraints:
        store="[A-Za-z0-9_-]+",
        aggregator="mean|sum|max",
    resources:
        **CPU_JOB,
    params:
        store=subpath(input[0], parent=True),
    message:
        "Table of aggregated features: {output}"
    shell:
        'python "$SAGEBENCH_SCRIPTS/build_table.py" --store {params.store:q}'
        " --aggregator {wildcards.aggregator:q} 2>&1 | tee -i {log:q}"


# probe: what a few micro-batches of each fanout and batch size sample, and what a recorded step of
# each configuration takes. pilot: a few micro-steps of each configuration, timed on the devices
# that trials will run on. One job for all of them; what is there is not measured again.
for measured, asked in {
    "probe": CPU_JOB,
    "pilot": jobs.resources_of_pilots(study.site, lambda: len(missing_of(study))),
}.items():

    rule:
        name:
            measured
        input:
            [ancient(manifest_path(RESULTS, store)) for store in study.stores],
            tables_read if measured == "pilot" else [],
        log:
            f"{STUDY}/logs/{measured}.txt",
        threads: TRIAL_THREADS
        resources:
            **asked,
        params:
            what=measured,
        message:
            f"For the plan: {RESULTS}/{measured}s/"
        shell:
            'python "$SAGEBENCH_SCRIPTS/prepare.py" {params.what} --study "$SAGEBENCH_FROZEN_STUDY"'
            " 2>&1 | tee -i {log:q}"


# A short job that is submitted and started as trials are.
rule preflight:
    output:
        f"{RESULTS}/preflight/{study.site.machine}/{{preflight}}.json",
    log:
        f"{RESULTS}/preflight/{study.site.machine}/{{preflight}}.log",
    wildcard_constraints:
        preflight="[0-9]+",
    threads: TRIAL_THREADS
    resources:
        **jobs.resources_of_preflights(study.site),
    message:
        "Preflight of {wildcards.preflight} ranks"
    shell:
        'python "$SAGEBENCH_SCRIPTS/prepare.py" preflight --study "$SAGEBENCH_FROZEN_STUDY"'
        " --ranks {wildcards.preflight} --out {output:q} 2>&1 | tee -i {log:q}"
