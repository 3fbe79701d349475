# Whether a machine is set up for trials: short jobs that are submitted and started as trials are.


rule preflight:
    output:
        f"{RESULTS}/preflight/{study.site.machine}/{{preflight}}.json",
    log:
        f"{RESULTS}/preflight/{study.site.machine}/{{preflight}}.log",
    wildcard_constraints:
        preflight="[0-9]+",
    threads: trial_threads()
    resources:
        **preflight_resources(),
    message:
        "Preflight of {wildcards.preflight} ranks"
    shell:
        'python "$SAGEBENCH_SCRIPTS/preflight_width.py" --study "$SAGEBENCH_FROZEN_STUDY"'
        " --ranks {wildcards.preflight} --out {output:q} 2>&1 | tee -i {log:q}"
