# What the models of a study cost, side by side, for studies with such columns.


rule measure:
    input:
        receipts("measure"),


rule measure_study:
    output:
        receipt("results/measure"),
    log:
        "logs/measure/{id}.log",
    # All cores of this machine, so that no other job disturbs the clock.
    threads: lambda wildcards: workflow.resource_settings.cores or PLAN.threads("measure")
    resources:
        mem_mb=mem_mb,
        runtime=runtime,
    params:
        options=PLAN.options,
    shell:
        "lightasr --log {log} measure {wildcards.id} {params.options}"
