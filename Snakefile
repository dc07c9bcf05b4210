# The only DAG of the project: from archives to tables. What there is to do comes from the plan.
from snakemake.utils import min_version

min_version("9.27")


include: "workflow/rules/common.smk"
include: "workflow/rules/archive.smk"
include: "workflow/rules/features.smk"
include: "workflow/rules/labels.smk"
include: "workflow/rules/tokenizer.smk"
include: "workflow/rules/lm.smk"
include: "workflow/rules/neural_lm.smk"
include: "workflow/rules/cluster.smk"
include: "workflow/rules/pretrain.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/probe.smk"
include: "workflow/rules/decode.smk"
include: "workflow/rules/score.smk"
include: "workflow/rules/measure.smk"
include: "workflow/rules/tables.smk"


localrules:
    all,


rule all:
    default_target: True
    input:
        [study.tables for study in PLAN.studies],
        PLAN.report,
