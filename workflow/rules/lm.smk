# Word n-grams for the beam search.


rule lm:
    input:
        receipts("lm"),


rule build_lm:
    input:
        inputs,
    output:
        "data/lm/{id}/run.json",
    log:
        "logs/lm/{id}.log",
    params:
        options=PLAN.options,
    threads: PLAN.threads("lm")
    resources:
        mem_mb=4000,
        runtime=120,
    shell:
        "lightasr --log {log} lm {wildcards.id} {params.options}"
