# A few micro-steps of every configuration, timed on the devices that trials will run on, for the
# plan. One job for all of them; what is there is not measured again.


rule pilot:
    input:
        [ancient(manifest_path(RESULTS, store)) for store in study.stores],
    log:
        f"{STUDY}/logs/pilot.txt",
    threads: trial_threads()
    resources:
        **pilot_resources(),
    message:
        f"Pilots: {RESULTS}/pilots/{study.site.machine}/"
    shell:
        'python "$SAGEBENCH_SCRIPTS/pilot.py" --study "$SAGEBENCH_FROZEN_STUDY"'
        " 2>&1 | tee -i {log:q}"
