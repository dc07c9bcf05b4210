# Errors of each decoded model.


rule score:
    input:
        receipts("score"),


rule score_run:
    input:
        inputs,
    output:
        "results/score/{id}/run.json",
    log:
        "logs/score/{id}.log",
    threads: PLAN.threads("score")
    resources:
        mem_mb=3000,
        runtime=30,
    params:
        options=PLAN.options,
    shell:
        "lightasr --log {log} score {wildcards.id} {params.options}"
