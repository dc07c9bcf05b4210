# Labels of frames for pretrainings that tell clusters: of features, or of what another has learnt.


rule cluster:
    input:
        receipts("cluster"),


rule cluster_frames:
    input:
        inputs,
    output:
        receipt("data/clusters"),
    log:
        "logs/cluster/{id}.log",
    threads: PLAN.threads("cluster")
    resources:
        mem_mb=mem_mb,
        runtime=runtime,
    params:
        options=PLAN.options,
    shell:
        "lightasr --log {log} cluster {wildcards.id} {params.options}"
