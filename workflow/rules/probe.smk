# What each layer of a model knows, for experiments that ask.


rule probe:
    input:
        receipts("probe"),


rule probe_layers:
    input:
        inputs,
    output:
        receipt("results/probe"),
    log:
        "logs/probe/{id}.log",
    threads: PLAN.threads("probe")
    resources:
        mem_mb=mem_mb,
        runtime=runtime,
    params:
        options=PLAN.options,
    shell:
        "lightasr --log {log} probe {wildcards.id} {params.options}"
