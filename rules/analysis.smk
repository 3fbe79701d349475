# Outcomes become tables, tables become figures, all of it becomes the report.

# What Slurm's accounting says of the jobs; nothing without Slurm.
ACCOUNTING = [f"{STUDY}/accounting.csv"] if study.site.launcher == "slurm" else []
WITH_ACCOUNTING = ["--accounting", *ACCOUNTING] if ACCOUNTING else []


if ACCOUNTING:

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
        script=script("make_tables.py"),
        library=analysis_library(),
    output:
        table_files(),
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
        tables=table_files(),
        script=script("make_figures.py"),
        library=analysis_library(),
    output:
        figure_files(),
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
        tables=table_files(),
        figures=figure_files(),
        accounting=ACCOUNTING,
        script=script("make_report.py"),
        library=analysis_library("*.py", "*.html", "*.css", "*.js"),
    output:
        report_file(),
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
        accounting=[f"{STUDY}/partial/accounting.csv"] if ACCOUNTING else [],
    shell:
        '(for csv in {params.accounting:q}; do python "$SAGEBENCH_SCRIPTS/collect_accounting.py"'
        ' --study {params.study:q} --out "$csv"; done;'
        ' python "$SAGEBENCH_SCRIPTS/make_tables.py" --study {params.study:q} --partial'
        " --accounting {params.out:q}/accounting.csv"
        " --results {params.results:q} --out {params.out:q}/tables;"
        ' python "$SAGEBENCH_SCRIPTS/make_figures.py"'
        " --tables {params.out:q}/tables --axes {params.axes:q} --out {params.out:q}/figures;"
        ' python "$SAGEBENCH_SCRIPTS/make_report.py" --study {params.study:q}'
        " --tables {params.out:q}/tables --figures {params.out:q}/figures"
        " --accounting {params.out:q}/accounting.csv --out {params.out:q}/report.html;"
        ' echo "Report: "{params.out:q}/report.html) 2>&1 | tee -i {log:q}'
