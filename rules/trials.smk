# One job a trial, one outcome a job. The outcome is all that a trial declares: its folder also
# holds the log and the attempts, which a failure must not take away.


rule trials:
    input:
        outcome_files,
    localrule: True


rule trial:
    input:
        store=trial_store,
        table=trial_table,
    output:
        outcome_path(RESULTS, "{trial}"),
    log:
        f"{RESULTS}/trials/{{trial}}/log.txt",
    threads: TRIAL_THREADS
    resources:
        **jobs.resources_of_trials(study),
    params:
        # Nothing that does not identify the trial: a changed parameter runs it again.
        trial=trial_path(RESULTS, "{trial}"),
    shell:
        'python "$SAGEBENCH_SCRIPTS/run_trial.py" --trial {params.trial:q}'
        ' --store "$(dirname {input.store:q})" --outcome {output:q}'
        ' --walltime-min {resources.runtime} --study "$SAGEBENCH_FROZEN_STUDY"'
        " 2>&1 | tee -ai {log:q}"
