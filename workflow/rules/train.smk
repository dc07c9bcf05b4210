# Fine-tuning: one job for each experiment and seed.


rule train:
    input:
        receipts("train"),


rule train_model:
    input:
        inputs,
    output:
        "results/train/{id}/run.json",
    log:
        "logs/train/{id}.log",
    threads: PLAN.threads("train")
    resources:
        mem_mb=8000,
        runtime=1440,
    params:
        options=PLAN.options,
        devices=lambda wildcards, resources: max(1, resources.get("gpu") or 1),
    shell:
        "lightasr --log {log} train {wildcards.id} {params.options} --devices {params.devices}"
