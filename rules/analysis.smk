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


rule tables:
    input:
        # Accounting comes of the outcomes, and after them; both would cost twice the planning.
        outcomes=ACCOUNTING or outcome_files,
        script=f"{SCRIPTS}/make_tables.py",
        library=analysis_library(),
    output:
        TABLES,
    log:
        f"{STUDY}/logs/tables.txt",
    localrule: True
    params:
        study=freezer.path,  # of another study or grid, other tables
        results=subpath(output[0], ancestor=3),
        out=subpath(output[0], parent=True),
        accounting=WITH_ACCOUNTING,
    message:
        f"Tables: {STUDY}/tables/"
    shell:
        "python {input.script:q} --study {params.study:q} --results {params.results:q}"
        " {params.accounting:q} --out {params.out:q} 2>&1 | tee -i {log:q}"


rule figures:
    input:
        tables=TABLES,
        script=f"{SCRIPTS}/make_figures.py",
        library=analysis_library(),
    output:
        FIGURES,
    log:
        f"{STUDY}/logs/figures.txt",
    localrule: True
    params:
        tables=subpath(input[0], parent=True),
        axes=AXES,
        out=subpath(output[0], parent=True),
    message:
        f"Figures: {STUDY}/figures/"
    shell:
        "python {input.script:q} --tables {params.tables:q} --axes {params.axes:q}"
        " --out {params.out:q} > {log:q} 2>&1"


rule report:
    input:
        tables=TABLES,
        figures=FIGURES,
        accounting=ACCOUNTING,
        script=f"{SCRIPTS}/make_report.py",
        library=analysis_library(".html", ".css", ".js"),
    output:
        REPORT,
    log:
        f"{STUDY}/logs/report.txt",
    localrule: True
    params:
        study=freezer.path,
        tables=subpath(input[0], parent=True),
        figures=lambda _, input: Path(input.figures[0]).parent,
        accounting=WITH_ACCOUNTING,
    message:
        "Report: {output}"
    shell:
        "python {input.script:q} --study {params.study:q} --tables {params.tables:q}"
        " --figures {params.figures:q} {params.accounting:q} --out {output:q} > {log:q} 2>&1"


# Tables, figures and report of what there is; also while the study runs, with --nolock.
rule partial:
    log:
        f"{STUDY}/logs/partial.txt",
    localrule: True
    params:
        study=freezer.path,
        results=RESULTS,
        axes=AXES,
        out=f"{STUDY}/partial",
        accounting=[f"{STUDY}/partial/accounting.csv"] if BY_SLURM else [],
    shell:
        '(scripts="$SAGEBENCH_SCRIPTS" study={params.study:q} out={params.out:q};'
        " for csv in {params.accounting:q}; do"
        ' python "$scripts/collect_accounting.py" --study "$study" --out "$csv"; done;'
        ' python "$scripts/make_tables.py" --study "$study" --results {params.results:q}'
        ' --accounting "$out/accounting.csv" --partial --out "$out/tables";'
        ' python "$scripts/make_figures.py" --tables "$out/tables" --axes {params.axes:q}'
        ' --out "$out/figures";'
        ' python "$scripts/make_report.py" --study "$study" --tables "$out/tables"'
        ' --figures "$out/figures" --accounting "$out/accounting.csv" --out "$out/report.html";'
        ' echo "Report: $out/report.html") 2>&1 | tee -i {log:q}'
