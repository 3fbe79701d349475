# What a study takes: a table here, plan.csv and plan.html. From the configuration alone, and better
# from what was probed and measured.


rule plan:
    log:
        f"{STUDY}/logs/plan.txt",
    localrule: True
    params:
        study=freezer.path,
        out=f"{STUDY}/plan.csv",
    shell:
        'python "$SAGEBENCH_SCRIPTS/plan.py" --study {params.study:q} --out {params.out:q} 2> {log:q}'
