# The symbols that models write.


rule tokenizer:
    input:
        receipts("tokenizer"),


rule make_tokenizer:
    input:
        inputs,
    output:
        receipt("data/tokenizers"),
    log:
        "logs/tokenizer/{id}.log",
    threads: PLAN.threads("tokenizer")
    resources:
        mem_mb=mem_mb,
        runtime=runtime,
    params:
        options=PLAN.options,
    shell:
        "lightasr --log {log} tokenizer {wildcards.id} {params.options}"
