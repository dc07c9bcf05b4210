# Fine-tuning: one job for each experiment and seed.


rule train:
    input:
        receipts("train"),


rule train_model:
    input:
        inputs,
    output:
        receipt("results/train"),
    log:
        "logs/train/{id}.log",
    threads: PLAN.threads("train")
    resources:
        mem_mb=mem_mb,
        runtime=runtime,
    params:
        options=PLAN.options,
        launcher=launcher,
        processes=processes,
    shell:
        "{params.launcher} lightasr --log {log} train {wildcards.id} {params.options}"
        " {params.processes}"
