# sagebench: a grid of GraphSAGE configurations in; trials, tables, figures and a report out.
#
#   snakemake --profile profiles/local --configfile config/demo.yaml          all of it
#   snakemake plan --profile profiles/local --configfile config/demo.yaml     what it would cost
#
# Targets: all, plan, stores, probe, pilot, trials, tables, figures, partial. docs/studies.md tells more.
from snakemake.utils import min_version

min_version("9.8")


# The image that rules/ builds for clusters; profiles decide whether it is used.
container: "container/sagebench.sif"


report: "report/workflow.rst"


include: "rules/common.smk"
include: "rules/prepare.smk"
include: "rules/trials.smk"
include: "rules/analysis.smk"


rule all:
    default_target: True
    input:
        REPORT,
        TABLES,
        deleted_outcomes,


# Only the main process of a real run comes here: not a dry run, not a job on a node.
onstart:
    before_run()
