# Archives: the built-in corpus is made, others are downloaded.


rule archive:
    input:
        receipts("archive"),


rule fetch_part:
    input:
        inputs,
    output:
        receipt("data/archives"),
    log:
        "logs/archive/{id}.log",
    # One connection needs no second core; voices are synthesised on all there are.
    threads: lambda wildcards: 1 if PLAN.jobs[wildcards.id].places else PLAN.threads("archive")
    resources:
        mem_mb=mem_mb,
        runtime=runtime,
    params:
        options=PLAN.options,
    shell:
        "lightasr --log {log} fetch {wildcards.id} {params.options}"
