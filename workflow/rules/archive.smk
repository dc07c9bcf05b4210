# Archives: the built-in corpus is made, others are downloaded.


rule archive:
    input:
        receipts("archive"),


rule fetch_part:
    input:
        inputs,
    output:
        "data/archives/{id}/run.json",
    log:
        "logs/archive/{id}.log",
    threads: PLAN.threads("archive")
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        options=PLAN.options,
    shell:
        "lightasr --log {log} fetch {wildcards.id} {params.options}"
