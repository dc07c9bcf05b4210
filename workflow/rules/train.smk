# Fine-tuning: one job for each experiment and seed.
import re


def devices(resources):
    """GPUs of each node, asked for by `gpu: 4` or `gres: "gpu:4"`; 1 where there is none."""
    named = re.search(r"gpu(?::\w+)?:(\d+)", str(resources.get("gres") or ""))
    return max(1, int(named[1]) if named else resources.get("gpu") or 1)


def launcher(wildcards, resources):
    """What starts the command once on each of several nodes."""
    nodes = resources.get("nodes") or 1
    return f"{resources.mpi} --nodes={nodes} --ntasks={nodes}" if nodes > 1 else ""


def processes(wildcards, resources):
    """The processes that train one model together."""
    nodes = resources.get("nodes") or 1
    several = f' --nodes {nodes} --rendezvous "$(hostname)"' if nodes > 1 else ""
    return f"--devices {devices(resources)}{several}"


rule train:
    input:
        receipts("train"),


rule train_model:
    input:
        inputs,
    output:
        "results/train/{id}/run.json",
    log:
        "logs/train/{id}.log",
    threads: PLAN.threads("train")
    resources:
        mem_mb=mem_mb,
        runtime=runtime,
    params:
        options=PLAN.options,
        launcher=launcher,
        processes=processes,
    shell:
        "{params.launcher} lightasr --log {log} train {wildcards.id} {params.options}"
        " {params.processes}"
