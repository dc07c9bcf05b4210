# Self-supervised learning: one job for each configuration, which all fine-tunings of it share.


rule pretrain:
    input:
        receipts("pretrain"),


rule pretrain_model:
    input:
        inputs,
    output:
        receipt("results/pretrain"),
    log:
        "logs/pretrain/{id}.log",
    threads: PLAN.threads("pretrain")
    resources:
        mem_mb=mem_mb,
        runtime=runtime,
    params:
        options=PLAN.options,
        launcher=launcher,
        processes=processes,
    shell:
        "{params.launcher} lightasr --log {log} pretrain {wildcards.id} {params.options}"
        " {params.processes}"
