# One table for each study, and one page for all of them.


rule tables:
    input:
        [study.tables for study in PLAN.studies],


for study in PLAN.studies:

    rule:
        name:
            f"table_{study.name}"
        input:
            ancient(study.receipts),
        output:
            study.tables,
        log:
            f"logs/tables/{study.scale}-{study.name}.log",
        resources:
            mem_mb=lambda wildcards, attempt: attempt * 2000,
            runtime=lambda wildcards, attempt: attempt * 30,
        params:
            study=study.name,
            options=f"--scale {PLAN.scale}",
        shell:
            "lightasr --log {log} tables {params.study} {params.options}"


rule make_report:
    input:
        ancient([study.tables[-1] for study in PLAN.studies]),
        # Tables are in git: that they are there does not mean that the runs behind them are.
        ancient([path for study in PLAN.studies for path in study.receipts]),
    output:
        PLAN.report,
    log:
        f"logs/report/{PLAN.scale}.log",
    resources:
        mem_mb=lambda wildcards, attempt: attempt * 2000,
        runtime=lambda wildcards, attempt: attempt * 30,
    params:
        options=PLAN.options,
    shell:
        "lightasr --log {log} report {params.options}"


rule report:
    input:
        PLAN.report,
