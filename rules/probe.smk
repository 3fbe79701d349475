# Graph stores become probes: what a few micro-batches of each fanout and batch size sample, and what
# a recorded step of each configuration takes, for the plan. What is there is not taken again.


rule probe:
    input:
        [ancient(manifest_path(RESULTS, store)) for store in study.stores],
    log:
        f"{STUDY}/logs/probe.txt",
    resources:
        **cpu_resources(),
    message:
        f"Probes: {RESULTS}/probes/"
    shell:
        'python "$SAGEBENCH_SCRIPTS/probe_store.py" --study "$SAGEBENCH_FROZEN_STUDY"'
        " 2>&1 | tee -i {log:q}"
