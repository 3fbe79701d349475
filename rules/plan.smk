# What a study would cost, from its configuration alone.


rule plan:
    log:
        f"{STUDY}/logs/plan.txt",
    localrule: True
    params:
        study=freezer.path,
        out=f"{STUDY}/plan.csv",
    shell:
        'python "$SAGEBENCH_SCRIPTS/plan.py" --study {params.study:q} --out {params.out:q} 2> {log:q}'
