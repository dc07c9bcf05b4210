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
    params:
        options=PLAN.options,
    threads: PLAN.threads("tokenizer")
    resources:
        mem_mb=2000,
        runtime=30,
    shell:
        "lightasr --log {log} tokenizer {wildcards.id} {params.options}"
