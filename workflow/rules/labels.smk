# The transcripts that experiments with few labels use.


rule labels:
    input:
        receipts("labels"),


rule choose_labels:
    input:
        inputs,
    output:
        receipt("data/labels"),
    log:
        "logs/labels/{id}.log",
    threads: PLAN.threads("labels")
    resources:
        mem_mb=mem_mb,
        runtime=runtime,
    params:
        options=PLAN.options,
    shell:
        "lightasr --log {log} labels {wildcards.id} {params.options}"
