# Outcomes become tables, tables become figures, all of it becomes the report.


if BY_SLURM:

    # Never a reason to fail: where sacct does not answer, the file says why.
    rule accounting:
        input:
            outcome_files,
        output:
            update(ACCOUNTING),  # Slurm forgets its jobs, the file does not
        log:
            f"{STUDY}/logs/accounting.txt",
        localrule: True
        params:
            study=freezer.path,
        message:
            "Accounting: {output}"
        shell:
            'python "$SAGEBENCH_SCRIPTS/collect_accounting.py" --study {params.study:q}'
            " --out {output:q} > {log:q} 2>&1"


# Accounting comes of the outcomes, and after them; both would cost twice the planning.
MADE_OF = {
    "tables": (ACCOUNTING or outcome_files, TABLES, "tables/"),
    "figures": (TABLES, FIGURES, "figures/"),
    "report": ([*TABLES, *FIGURES, *ACCOUNTING], REPORT, "report.html"),
}
# Of another study, other tables.
ANALYSED = ["--study", freezer.path, "--results", RESULTS]

for stage, (made_of, made, name) in MADE_OF.items():

    rule:
        name:
            stage
        input:
            made_of,
            script=f"{SCRIPTS}/make_report.py",
            library=analysis_library(),
        output:
            made,
        log:
            f"{STUDY}/logs/{stage}.txt",
        localrule: True
        params:
            stage=stage,
            study=ANALYSED,
            out=lambda _: STUDY,
            accounting=["--accounting", *ACCOUNTING] if BY_SLURM else [],
        message:
            f"{stage.capitalize()}: {STUDY}/{name}"
        shell:
            "python {input.script:q} {params.stage} {params.study:q} {params.accounting:q}"
            " --out {params.out:q} 2>&1 | tee -i {log:q}"


# Tables, figures and report of what there is; also while the study runs, with --nolock.
rule partial:
    log:
        f"{STUDY}/logs/partial.txt",
    localrule: True
    params:
        frozen=freezer.path,
        study=ANALYSED,
        out=f"{STUDY}/partial",
        accounting=[f"{STUDY}/partial/accounting.csv"] if BY_SLURM else [],
    shell:
        '(scripts="$SAGEBENCH_SCRIPTS" out={params.out:q};'
        " for csv in {params.accounting:q}; do"
        ' python "$scripts/collect_accounting.py" --study {params.frozen:q} --out "$csv"; done;'
        ' python "$scripts/make_report.py" tables figures report {params.study:q} --partial'
        ' --accounting "$out/accounting.csv" --out "$out";'
        ' echo "Report: $out/report.html") 2>&1 | tee -i {log:q}'
