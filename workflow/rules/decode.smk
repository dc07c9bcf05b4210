# Hypotheses of each trained model for the held-out parts.


rule decode:
    input:
        receipts("decode"),


rule decode_run:
    input:
        inputs,
    output:
        "results/decode/{id}/run.json",
    log:
        "logs/decode/{id}.log",
    threads: PLAN.threads("decode")
    resources:
        mem_mb=8000,
        runtime=240,
    params:
        options=PLAN.options,
    shell:
        "lightasr --log {log} decode {wildcards.id} {params.options}"
