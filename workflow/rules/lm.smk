# N-grams for the beam search.


rule lm:
    input:
        receipts("lm"),


rule build_lm:
    input:
        inputs,
    output:
        receipt("data/lm"),
    log:
        "logs/lm/{id}.log",
    threads: PLAN.threads("lm")
    resources:
        mem_mb=mem_mb,
        runtime=runtime,
    params:
        options=PLAN.options,
    shell:
        "lightasr --log {log} lm {wildcards.id} {params.options}"
