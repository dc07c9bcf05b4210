# Hypotheses of each trained model for the held-out parts.


# On a cluster some models are decoded and scored within one job (`group-components` of the
# profile), one after the other (`evaluations=1` there): a job needs the memory of one of them.
resource_scopes:
    evaluations="local",


rule decode:
    input:
        receipts("decode"),


rule decode_run:
    input:
        inputs,
    output:
        receipt("results/decode"),
    log:
        "logs/decode/{id}.log",
    group:
        "evaluate"
    threads: PLAN.threads("decode")
    resources:
        mem_mb=mem_mb,
        runtime=runtime,
        evaluations=1,
    params:
        options=PLAN.options,
    shell:
        "lightasr --log {log} decode {wildcards.id} {params.options}"
