# The symbols that models write.


rule tokenizer:
    input:
        receipts("tokenizer"),


rule make_tokenizer:
    input:
        inputs,
    output:
        "data/tokenizers/{id}/run.json",
    log:
        "logs/tokenizer/{id}.log",
    threads: PLAN.threads("tokenizer")
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        options=PLAN.options,
    shell:
        "lightasr --log {log} tokenizer {wildcards.id} {params.options}"
