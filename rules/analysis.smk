# Outcomes become tables, tables become figures, all of it becomes the report.


rule tables:
    input:
        outcomes=outcome_files,
        script=script("make_tables.py"),
        library=analysis_library(),
    output:
        table_files(flagged=True),
    log:
        f"{STUDY}/logs/tables.txt",
    localrule: True
    params:
        study=freezer.path,  # of another study or grid, other tables
        results=subpath(output[0], ancestor=3),
        out=subpath(output[0], parent=True),
    message:
        f"Tables: {STUDY}/tables/"
    shell:
        "python {input.script:q} --study {params.study:q} --results {params.results:q}"
        " --out {params.out:q} > {log:q} 2>&1"


for plot in FIGURES:

    rule:
        name:
            f"plot_{plot}"
        input:
            tables=table_files(),
            script=script(f"plot_{plot}.py"),
            library=analysis_library(),
        output:
            figure_files(plot, flagged=True),
        log:
            f"{STUDY}/logs/plot_{plot}.txt",
        localrule: True
        params:
            tables=subpath(input[0], parent=True),
            out=subpath(output[0], parent=True),
        message:
            f"Figures: {', '.join(FIGURES[plot][1])}"
        shell:
            "python {input.script:q} --tables {params.tables:q}"
            " --out {params.out:q} > {log:q} 2>&1"


rule figures:
    input:
        [figure_files(plot) for plot in FIGURES],
    localrule: True


rule report:
    input:
        tables=table_files(),
        figures=rules.figures.input,
        script=script("make_report.py"),
        library=analysis_library("*.py", "*.html", "*.css", "*.js"),
    output:
        captioned(report_file(), "Report"),
    log:
        f"{STUDY}/logs/report.txt",
    localrule: True
    params:
        study=freezer.path,
        tables=subpath(input[0], parent=True),
        figures=lambda _, input: Path(input.figures[0]).parent,
    message:
        "Report: {output}"
    shell:
        "python {input.script:q} --study {params.study:q} --tables {params.tables:q}"
        " --figures {params.figures:q} --out {output:q} > {log:q} 2>&1"


# Tables, figures and report of what there is; also while the study runs, with --nolock.
rule partial:
    log:
        f"{STUDY}/logs/partial.txt",
    localrule: True
    params:
        study=freezer.path,
        results=RESULTS,
        out=f"{STUDY}/partial",
        plots=list(FIGURES),
    shell:
        '(python "$SAGEBENCH_SCRIPTS/make_tables.py" --study {params.study:q} --partial'
        " --results {params.results:q} --out {params.out:q}/tables;"
        ' for plot in {params.plots}; do python "$SAGEBENCH_SCRIPTS/plot_$plot.py"'
        " --tables {params.out:q}/tables --out {params.out:q}/figures; done;"
        ' python "$SAGEBENCH_SCRIPTS/make_report.py" --study {params.study:q}'
        " --tables {params.out:q}/tables --figures {params.out:q}/figures"
        " --out {params.out:q}/report.html;"
        ' echo "Report: "{params.out:q}/report.html) 2>&1 | tee -i {log:q}'
