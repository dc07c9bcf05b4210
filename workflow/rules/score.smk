# Errors of each decoded model.


rule score:
    input:
        receipts("score"),


rule score_run:
    input:
        inputs,
    output:
        receipt("results/score"),
    log:
        "logs/score/{id}.log",
    group:
        "evaluate"
    threads: PLAN.threads("score")
    resources:
        mem_mb=mem_mb,
        runtime=runtime,
        evaluations=1,
    params:
        options=PLAN.options,
    shell:
        "lightasr --log {log} score {wildcards.id} {params.options}"
