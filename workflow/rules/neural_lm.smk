# Recurrent language models, trained like recognizers: one job for each configuration and seed.


rule neural_lm:
    input:
        receipts("neural_lm"),


rule train_neural_lm:
    input:
        inputs,
    output:
        receipt("data/neural_lm"),
    log:
        "logs/neural_lm/{id}.log",
    threads: PLAN.threads("neural_lm")
    resources:
        mem_mb=mem_mb,
        runtime=runtime,
    params:
        options=PLAN.options,
        launcher=launcher,
        processes=processes,
    shell:
        "{params.launcher} lightasr --log {log} neural-lm {wildcards.id} {params.options}"
        " {params.processes}"
