# Features of each part, computed from its archive as a stream.


rule features:
    input:
        receipts("features"),


rule compute_features:
    input:
        inputs,
    output:
        receipt("data/features"),
    log:
        "logs/features/{id}.log",
    threads: PLAN.threads("features")
    resources:
        mem_mb=mem_mb,
        runtime=runtime,
    params:
        options=PLAN.options,
    shell:
        "lightasr --log {log} features {wildcards.id} {params.options}"
