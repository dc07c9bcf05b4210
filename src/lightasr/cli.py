"""The command line: one sub-command per stage, and those people use."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lightasr.errors import LightasrError
from lightasr.jobs import Job
from lightasr.plan import Plan, load_plan
from lightasr.progress import log_to, say
from lightasr.threads import usable_cores

if TYPE_CHECKING:
    from lightasr.serve.recognizer import Recognizer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Which encoder gives the best word error rate for what it costs?",
)
Scale = Annotated[
    str | None,
    typer.Option("--scale", help="A file in config/scales (default: config/config.yaml's)."),
]
Studies = Annotated[list[str] | None, typer.Option(help="Only this study (repeatable).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
RunName = Annotated[
    str,
    typer.Argument(
        help="A trained model: an experiment's name, `study/name`, or a directory.", metavar="RUN"
    ),
]
BenchOut = Annotated[
    Path | None,
    typer.Option("--json", help="Default: results/bench/<name>.json.", metavar="OUT"),
]
BenchDevice = Annotated[Literal["cpu", "cuda"], typer.Option(help="Where to compute.")]
BenchDeviceOut = Annotated[
    Path | None,
    typer.Option("--json", help="Default: results/bench/<name>-<device>.json.", metavar="OUT"),
]
Decoder = Annotated[
    Literal["greedy", "beam", "flashlight"],
    typer.Option(help="All but `greedy` use the run's language model."),
]
DecodedPart = Annotated[
    str | None,
    typer.Option("--of", help="Of a run: which file, `test-clean.beam`.", metavar="PART.DECODER"),
]
Speakers = Annotated[
    Path | None,
    typer.Option(help="Who says which utterance: lines of `id speaker`.", metavar="UTT2SPK"),
]
JobId = Annotated[
    str, typer.Argument(help="Directory name, or for runs an experiment's name.", metavar="ID")
]
Devices = Annotated[
    int, typer.Option(min=1, help="GPUs of this machine (processes, where it has none).")
]
Nodes = Annotated[
    int, typer.Option(min=1, help="Machines that train together; run this on each of them.")
]
Rendezvous = Annotated[
    str | None,
    typer.Option(help="One of these machines, the same on all.", metavar="HOST[:PORT]"),
]


def main() -> None:
    """Entry point: an error a user can mend is one message and an exit code, no traceback."""
    try:
        app()
    except LightasrError as error:
        for line in str(error).splitlines():
            say(f"lightasr: {line}")
        sys.exit(error.exit_code)


@app.callback()
def common(
    log: Annotated[Path | None, typer.Option(help="Write what is said here, too.")] = None,
) -> None:
    if log is not None:
        log_to(log)


def project_root() -> Path:
    """The nearest directory upwards that holds `config/config.yaml`."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "config" / "config.yaml").exists():
            # Relative where possible: paths in messages are then the ones of the README.
            return Path() if folder == here else folder
    raise LightasrError("no config/config.yaml here or above: run this inside the project")


def read_plan(scale: str | None = None, studies: list[str] | None = None) -> Plan:
    return load_plan(project_root(), scale, studies)


# --- stages: what the workflow's rules call, and a person may call by hand ----------------------


def add_stage(command: str, stage: str, what: str) -> None:
    """A sub-command that makes one directory of a stage."""

    @app.command(command, help=f"{what}\n\nExample: `lightasr {command} {EXAMPLES[stage]}`")
    def run(job: JobId, scale: Scale = None, study: Studies = None) -> None:
        from lightasr.stage import execute

        plan = read_plan(scale, study)
        execute(plan, plan.job(stage, job))


@app.command()
def fetch(
    job: Annotated[
        str | None,
        typer.Argument(
            help="Directory name of one archive (default: all of the plan).", metavar="ID"
        ),
    ] = None,
    scale: Scale = None,
    study: Studies = None,
) -> None:
    """Make or download archives; a second call goes on where a first one stopped.

    Example: `lightasr fetch --scale librispeech-100`
    """
    from lightasr.data.archives import fetch_all
    from lightasr.stage import execute

    plan = read_plan(scale, study)
    if job is None:
        fetch_all(plan)
    else:
        execute(plan, plan.job("archive", job))


EXAMPLES = {
    "features": "dev-clean-fbank-bb20c5b919",
    "labels": "10min-3b0c6f2a9e",
    "tokenizer": "char-7d9a07e231",
    "cluster": "fbank-k100-4f1be0a37c",
    "train": "lstm",
    "probe": "lstm",
    "decode": "lstm",
    "measure": "mixers-5d9c02a1f3",
}
for _command, _stage, _what in [
    ("features", "features", "Compute the features of one part."),
    ("labels", "labels", "Choose the transcripts that an experiment with few labels uses."),
    ("tokenizer", "tokenizer", "Make the symbols that a model writes."),
    ("cluster", "cluster", "Find the clusters that a pretraining learns to tell, frame by frame."),
    ("probe", "probe", "Ask each layer of a model who speaks, about what, and which letters."),
    ("decode", "decode", "Find the hypotheses of one trained model."),
    ("measure", "measure", "Measure what the models of a study cost as utterances grow."),
]:
    add_stage(_command, _stage, _what)


@app.command()
def lm(
    job: Annotated[
        str,
        typer.Argument(
            help="Directory name; or `report`: perplexity, unknown words, size and time of all "
            "that are made.",
            metavar="ID|report",
        ),
    ],
    scale: Scale = None,
    study: Studies = None,
    as_json: AsJson = False,
) -> None:
    """Build an n-gram language model, or report on all language models of the plan.

    Example: `lightasr lm 4gram-ce31e0e1ab`, `lightasr lm report --scale sample`
    """
    plan = read_plan(scale, study)
    if job == "report":
        from lightasr.lm import report

        found = report.report(plan)
        print(json.dumps(asdict(found), indent=1) if as_json else report.report_text(found))
        return
    if as_json:
        raise LightasrError("--json goes with `lightasr lm report`")
    from lightasr.stage import execute

    execute(plan, plan.job("lm", job))


@app.command("neural-lm")
def neural_lm(
    job: JobId,
    scale: Scale = None,
    study: Studies = None,
    devices: Devices = 1,
    nodes: Nodes = 1,
    rendezvous: Rendezvous = None,
) -> None:
    """Train a recurrent language model; a second call goes on where a first one stopped.

    Example: `lightasr neural-lm char-lstm-4c1b0de7a2`
    """
    plan = read_plan(scale, study)
    train_together(plan, plan.job("neural_lm", job), devices, nodes, rendezvous)


@app.command()
def pretrain(
    job: JobId,
    scale: Scale = None,
    study: Studies = None,
    devices: Devices = 1,
    nodes: Nodes = 1,
    rendezvous: Rendezvous = None,
) -> None:
    """Train front end and encoder without labels; a second call goes on where one stopped.

    Example: `lightasr pretrain bestrq-transformer-mhsa-5c0e8d21f4`
    """
    plan = read_plan(scale, study)
    train_together(plan, plan.job("pretrain", job), devices, nodes, rendezvous)


@app.command()
def train(
    job: JobId,
    scale: Scale = None,
    study: Studies = None,
    devices: Devices = 1,
    nodes: Nodes = 1,
    rendezvous: Rendezvous = None,
    profile_steps: Annotated[
        int, typer.Option(min=0, help="Only time this many steps, and write a trace.")
    ] = 0,
) -> None:
    """Train one model; a second call goes on where a first one stopped.

    Example: `lightasr train lstm --devices 4`
    """
    plan = read_plan(scale, study)
    made = plan.job("train", job)
    if profile_steps:
        from lightasr.train.profile import profile

        print(profile(plan, made, profile_steps))
    else:
        train_together(plan, made, devices, nodes, rendezvous)


def train_together(plan: Plan, job: Job, devices: int, nodes: int, rendezvous: str | None) -> None:
    """Train in this process, or start those that train together, which come here again."""
    from lightasr.stage import execute
    from lightasr.train.launch import launch, launched

    if (devices > 1 or nodes > 1) and not launched():
        launch(devices, nodes, rendezvous)
    else:
        execute(plan, job)


@app.command()
def score(
    what: Annotated[
        list[str],
        typer.Argument(
            help="A run of the plan, one of its decoded files, or any reference and hypothesis.",
            metavar="ID | FILE | REF HYP",
        ),
    ],
    of: DecodedPart = None,
    page: Annotated[
        Path | None, typer.Option(help="Write all errors, word by word, here.", metavar="OUT")
    ] = None,
    speakers: Speakers = None,
    scale: Scale = None,
    study: Studies = None,
    as_json: AsJson = False,
) -> None:
    """Count the errors of one decoded model, or of any system's files.

    LibriSpeech's `*.trans.txt`, Kaldi's `text`, NIST's `trn` and TSVs are read.

    Example: `lightasr score ref.trn hyp.trn --page errors.html`
    """
    from lightasr.score import detail, inputs
    from lightasr.score.detail_text import detail_text
    from lightasr.score.errors_page import write_errors_page

    names = what
    if len(what) == 1 and not Path(what[0]).is_file():
        from lightasr.stage import execute

        plan = read_plan(scale, study)
        job = plan.job("score", what[0])
        execute(plan, job)
        if of is None and page is None and not as_json:
            return
        names = [str(inputs.decoded_file(plan.project, job.inputs["decode"].dir, of))]
    decoded, name = inputs.read_scored(names, speakers)
    found = detail.detail(decoded)
    if page is not None:
        write_errors_page(decoded, found, name, page)
    print(json.dumps(detail.detail_json(found), indent=1) if as_json else detail_text(found, name))


@app.command()
def compare(
    what: Annotated[
        list[str],
        typer.Argument(
            help="A reference and two hypotheses; or two runs or decoded files.",
            metavar="[REF] HYP_A HYP_B",
        ),
    ],
    of: DecodedPart = None,
    speakers: Speakers = None,
    scale: Scale = None,
    as_json: AsJson = False,
) -> None:
    """Whether two systems differ: NIST's tests, and intervals of the difference over speakers.

    Example: `lightasr compare ref.trn a.trn b.trn`, or
    `lightasr compare lstm gru --of test-clean.beam`
    """
    from lightasr.score import compare as comparing
    from lightasr.score.inputs import read_compared

    a, b, names = read_compared(what, of, speakers, lambda: read_plan(scale))
    found = comparing.compare(a, b, names)
    print(
        json.dumps(comparing.comparison_json(found), indent=1)
        if as_json
        else comparing.comparison_text(found)
    )


@app.command()
def tables(
    study: Annotated[str, typer.Argument(help="A file in config/studies.")], scale: Scale = None
) -> None:
    """Write a study's table: `results/tables/<scale>/<study>.md`, `.csv` and `.tex`.

    Example: `lightasr tables encoders`
    """
    from lightasr.score.results import make_table

    plan = read_plan(scale, [study])
    make_table(plan, plan.studies[0])


@app.command()
def report(scale: Scale = None, study: Studies = None) -> None:
    """Write the report page of a scale: `results/report/<scale>.html`.

    Example: `lightasr report --scale sample`
    """
    from lightasr.score.results import make_report

    make_report(read_plan(scale, study))


# --- what people ask ----------------------------------------------------------------------------


@app.command()
def plan(
    scale: Scale = None,
    study: Studies = None,
    as_json: AsJson = False,
) -> None:
    """What experiments there are, what they share, and what is still to be done.

    Example: `lightasr plan --study encoders`
    """
    from lightasr.overview import plan_json, plan_text

    the_plan = read_plan(scale, study)
    print(json.dumps(plan_json(the_plan), indent=1) if as_json else plan_text(the_plan))


@app.command()
def cost(
    scale: Scale = None,
    study: Studies = None,
    tflops: Annotated[
        float | None,
        typer.Option(
            help="That a device does in a second, of those counted (default: as trainings that are "
            "done).",
            min=1e-6,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What trainings will cost: products, device-hours, memory, counted before any is run.

    Example: `lightasr cost --scale librispeech-960 --study ssl_mixers_large --tflops 50`
    """
    from lightasr.cost.forecast import forecast_json, forecast_text, foresee_costs

    forecast = foresee_costs(read_plan(scale, study), tflops)
    print(json.dumps(forecast_json(forecast), indent=1) if as_json else forecast_text(forecast))


@app.command()
def status(scale: Scale = None, as_json: AsJson = False) -> None:
    """How far each stage is, what is being made now, and which results other source made.

    Example: `lightasr status`
    """
    from lightasr.overview import status_json, status_text

    the_plan = read_plan(scale)
    print(json.dumps(status_json(the_plan), indent=1) if as_json else status_text(the_plan))


@app.command()
def gc(
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep",
            help="Keep what this scale needs, and no other (repeatable; default: every scale).",
            metavar="SCALE",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it.")] = False,
    as_json: AsJson = False,
) -> None:
    """What no experiment of any study refers to at any scale; nothing goes without `--yes`.

    Example: `lightasr gc --yes`
    """
    from lightasr.gc import find_references, find_unused, found_json, found_text, remove

    project = project_root()
    references = find_references(project, keep)
    found = find_unused(project, references)
    if yes:
        found = remove(project, found)
    if as_json:
        print(json.dumps(found_json(found, references, yes), indent=1))
    else:
        print(found_text(found, references, yes))


@app.command()
def verify(
    stage: Annotated[
        list[str] | None, typer.Argument(help="Only these stages.", metavar="[STAGE]...")
    ] = None,
    everything: Annotated[
        bool,
        typer.Option("--all", help="Read every file, not only those written since the last time."),
    ] = False,
    discard: Annotated[
        bool, typer.Option("--discard", help="Let the workflow make what is damaged again.")
    ] = False,
    planned: Annotated[
        bool, typer.Option("--planned", help="Fail, too, where something of the plan is missing.")
    ] = False,
    scale: Scale = None,
    study: Studies = None,
    as_json: AsJson = False,
) -> None:
    """Whether data and results are still what was made, by the sizes and digests in receipts.

    Example: `lightasr verify train decode --all`
    """
    from lightasr import verify as verifying

    project = project_root()
    stages = verifying.check_stages(stage)
    folders = verifying.finished(project, stages)
    compare = verifying.Compare.EVERYTHING if everything else verifying.Compare.WRITTEN_SINCE
    found = verifying.find_damage(folders, compare)
    if discard:
        verifying.discard(found)
    missing = verifying.not_made(read_plan(scale, study), stages) if planned else None
    if as_json:
        print(json.dumps(verifying.damage_json(folders, found, missing), indent=1))
    else:
        print(verifying.damage_text(folders, found, discard, missing))
    if missing or (found and not discard):
        sys.exit(1)


@app.command()
def schema(
    write: Annotated[bool, typer.Option("--write", help="Write config/schema.json.")] = False,
) -> None:
    """The JSON schema of a study file, which completes keys in an editor.

    Example: `lightasr schema --write`
    """
    from lightasr.editor_schema import json_schema

    text = json.dumps(json_schema(), indent=1) + "\n"
    if write:
        (project_root() / "config" / "schema.json").write_text(text)
    else:
        print(text, end="")


@app.command()
def transcribe(
    run: RunName,
    audio: Annotated[list[Path], typer.Argument(help="Audio files of any format and rate.")],
    decoder: Decoder = "greedy",
    scale: Scale = None,
    as_json: AsJson = False,
) -> None:
    """Write down what is said in audio files of any length: a line a file.

    Example: `lightasr transcribe lstm interview.mp3`
    """
    from lightasr.serve.transcribe import transcribe_files

    recognizer = find_recognizer(run, decoder, scale)
    for name, text in transcribe_files(recognizer, audio):
        line = json.dumps({"audio": name, "text": text}) if as_json else f"{name}\t{text}"
        print(line, flush=True)


@app.command()
def evaluate(
    run: RunName,
    manifest: Annotated[
        Path, typer.Option(help="A TSV, a Kaldi data directory or one of lhotse's manifests.")
    ],
    split: Annotated[
        str | None, typer.Option(help="Lines of the TSV, or which of lhotse's manifests.")
    ] = None,
    decoder: Decoder = "greedy",
    scale: Scale = None,
    json_out: Annotated[
        Path | None, typer.Option("--json", help="Write the numbers here, too.", metavar="OUT")
    ] = None,
) -> None:
    """Error rates of a trained model on your own recordings.

    Example: `lightasr evaluate lstm --manifest mine.tsv --decoder beam`
    """
    from lightasr.serve.evaluate import evaluate_manifest, summary_text

    result = evaluate_manifest(find_recognizer(run, decoder, scale), manifest, split)
    if json_out is not None:
        from lightasr.files import write_atomically

        write_atomically(json_out, json.dumps(result, indent=1) + "\n")
    print(summary_text(result))


def find_recognizer(run: str, decoder: str, scale: str | None) -> Recognizer:
    from lightasr.serve.recognizer import load_recognizer

    return load_recognizer(read_plan(scale), run, decoder)


# --- data ---------------------------------------------------------------------------------------

data = typer.Typer(no_args_is_help=True)
app.add_typer(data, name="data", help="What the corpora hold.")


@data.command("report")
def data_report(scale: Scale = None, study: Studies = None, as_json: AsJson = False) -> None:
    """Sizes, words, duplicates and oddities of all parts; also as a page with histograms.

    Example: `lightasr data report --scale sample`
    """
    from lightasr.data.report import numbers, page, text

    the_plan = read_plan(scale, study)
    found = numbers.data_report(the_plan)
    if as_json:
        print(json.dumps(asdict(found), indent=1))
        return
    out = the_plan.project / "results" / "report" / f"data-{the_plan.scale}.html"
    page.write_data_page(found, out)
    print(f"{text.report_text(found)}\n\nThe page: {out}")


@data.command("split")
def data_split(
    manifest: Annotated[Path, typer.Argument(help="A TSV: docs/own-corpus.md.", metavar="TSV")],
    out: Annotated[Path, typer.Option(help="The same lines, with a column `split`.")],
    test: Annotated[int, typer.Option(min=1, help="Speakers to test on.")],
    dev: Annotated[int, typer.Option(min=0, help="Speakers to select weights on.")] = 0,
    utterances: Annotated[
        int | None,
        typer.Option(min=1, help="Of each of these speakers, the others `unused` (default: all)."),
    ] = None,
) -> None:
    """Divide a TSV into parts that share no speaker: `train`, `dev`, `test`.

    Example: `lightasr data split mine.tsv --test 8 --dev 4 --out manifests/mine.tsv`
    """
    from lightasr.data.manifests.split import split_tsv

    for part, found in split_tsv(manifest, out, {"test": test, "dev": dev}, utterances).items():
        print(f"{part:8}{found.utterances:8,} utterances{len(found.speakers):6,} speakers")


# --- benchmarks ---------------------------------------------------------------------------------

bench = typer.Typer(invoke_without_command=True)
app.add_typer(bench, name="bench")


@bench.callback()
def bench_all(context: typer.Context) -> None:
    """Measure this machine, side by side; without a name, everything, into `results/bench/`.

    Example: `lightasr bench`
    """
    if context.invoked_subcommand is None:
        bench_plan()
        bench_features()
        bench_data()
        bench_train()
        bench_units()
        bench_decoder()
        bench_kernels()
        bench_encoders()
        bench_pretraining()


@bench.command("plan")
def bench_plan(
    experiments: Annotated[int, typer.Option(help="Rows of the generated study.")] = 1000,
    seeds: Annotated[int, typer.Option(help="Seeds of each row.")] = 1,
    json_out: BenchOut = None,
) -> None:
    """How long planning takes when there are many experiments.

    Example: `lightasr bench plan --seeds 3`
    """
    from lightasr.bench import planning
    from lightasr.bench.results import write_results

    project = project_root()
    rows = planning.rows(project, experiments, tuple(range(1, seeds + 1)))
    out = json_out or project / "results" / "bench" / "plan.json"
    print(write_results("plan", planning.TITLE, rows, out))


@bench.command("train")
def bench_train(scale: Scale = None, json_out: BenchOut = None) -> None:
    """Our training loop beside SpeechBrain's: same model, utterances and batches.

    Example: `lightasr bench train --json train.json`
    """
    from lightasr.bench import training
    from lightasr.bench.results import write_results

    the_plan = read_plan(scale)
    out = json_out or the_plan.project / "results" / "bench" / "train.json"
    print(write_results("train", training.TITLE, training.rows(the_plan), out))


@bench.command("units")
def bench_units(scale: Scale = None, json_out: BenchOut = None) -> None:
    """A training step of each row of the study `recurrent_units`, beside that of its `lstm`.

    Example: `lightasr bench units --scale sample`
    """
    from lightasr.bench import units
    from lightasr.bench.results import write_results

    the_plan = read_plan(scale, [units.STUDY])
    out = json_out or the_plan.project / "results" / "bench" / "units.json"
    where: Mapping[str, str | int] = {"scale": the_plan.scale, "threads": usable_cores()}
    print(write_results("units", units.TITLE, units.rows(the_plan), out, also=where))


@bench.command("features")
def bench_features(scale: Scale = None, json_out: BenchOut = None) -> None:
    """Our features stage beside lhotse's: same recordings, same number of processes.

    Example: `lightasr bench features`
    """
    from lightasr.bench import features
    from lightasr.bench.results import write_results

    the_plan = read_plan(scale)
    out = json_out or the_plan.project / "results" / "bench" / "features.json"
    print(write_results("features", features.TITLE, features.rows(the_plan), out))


@bench.command("data")
def bench_data(json_out: BenchOut = None) -> None:
    """Loading, splitting and planning batches at LibriSpeech's size, beside lhotse's sampler.

    Example: `lightasr bench data --json data.json`
    """
    from lightasr.bench import data
    from lightasr.bench.results import write_results

    out = json_out or project_root() / "results" / "bench" / "data.json"
    print(write_results("data", data.TITLE, data.rows(), out))


@bench.command("decoder")
def bench_decoder(
    run: Annotated[
        str | None,
        typer.Option(
            help="A decoded run: an experiment, study/experiment or ID (default: the first).",
            metavar="RUN",
        ),
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="Recordings of one's own, besides the test parts.")
    ] = None,
    scale: Scale = None,
    json_out: BenchOut = None,
) -> None:
    """Our beam search beside flashlight's: utterances a second, and error rates.

    Example: `lightasr bench decoder --run lstm`
    """
    from lightasr.bench import decoder
    from lightasr.bench.results import write_results

    the_plan = read_plan(scale)
    out = json_out or the_plan.project / "results" / "bench" / "decoder.json"
    rows = decoder.rows(the_plan, run, manifest)
    print(write_results("decoder", decoder.TITLE, rows, out, also={"scale": the_plan.scale}))


@bench.command("kernels")
def bench_kernels(
    device: BenchDevice = "cpu",
    case: Annotated[
        str | None,
        typer.Option(help="Only cases with this in their name.", metavar="SUBSTRING"),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="The whole grid (it takes long), not a short selection.")
    ] = False,
    json_out: BenchDeviceOut = None,
) -> None:
    """Recurrent layers of ours with each kernel, beside torch's and SpeechBrain's.

    Example: `lightasr bench kernels --device cpu --case "B16 T400"`
    """
    from lightasr.bench import kernels
    from lightasr.bench.results import write_picture, write_results

    cases = kernels.choose_cases(device, case, full)
    out = json_out or project_root() / "results" / "bench" / f"kernels-{device}.json"
    for rows, machine in kernels.measure(cases, device, full):
        # Case by case: the grid takes long, and what is measured should be there if it is stopped.
        table = write_results("kernels", kernels.TITLE, rows, out, also=machine)
    print(table)
    if (picture := kernels.figure(cases, rows)) is not None:
        write_picture(picture, out)


@bench.command("encoders")
def bench_encoders(
    device: BenchDevice = "cpu",
    study: Annotated[str, typer.Option(help="Whose rows to measure.")] = "mixers",
    scale: Scale = None,
    json_out: BenchDeviceOut = None,
) -> None:
    """A study's encoders at 5 to 80 s of audio: time, memory, products, size; no data is needed.

    Example: `lightasr bench encoders --device cuda`
    """
    from lightasr.bench import encoders
    from lightasr.bench.results import write_picture, write_results
    from lightasr.schema import Measure

    the_plan = read_plan(scale, [study])
    found = encoders.measure_encoders(list(the_plan.experiments), device, Measure())
    out = json_out or the_plan.project / "results" / "bench" / f"encoders-{device}.json"
    table = write_results(
        "encoders",
        encoders.TITLE,
        found.rows,
        out,
        also={"study": study, "scale": the_plan.scale, **found.machine},
        note=found.note,
        more={"grid": [point.measured() for point in found.points]},
    )
    print(table)
    write_picture(encoders.figure(found.points), out)


@bench.command("pretraining")
def bench_pretraining(json_out: BenchOut = None) -> None:
    """A BEST-RQ training step of ours beside SpeechBrain's components, on this processor.

    Example: `lightasr bench pretraining --json pretraining.json`
    """
    from lightasr.bench import pretraining
    from lightasr.bench.results import write_results

    out = json_out or project_root() / "results" / "bench" / "pretraining.json"
    rows, where = pretraining.rows()
    title, note = pretraining.TITLE, pretraining.NOTE
    print(write_results("pretraining", title, rows, out, also=where, note=note))
