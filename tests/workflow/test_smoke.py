"""The whole DAG at scale `smoke`, once, and what people do with its results."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from planning import job_counts, write_study

ROOT = Path(__file__).parents[2]
PARTS_OF_PROJECT = ("config", "workflow", "profiles", "Snakefile")

pytestmark = pytest.mark.skipif(
    shutil.which("lmplz", path=str(Path(sys.executable).parent)) is None,
    reason="lmplz is not built; `make setup` builds it",
)


def call(project: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A command of this environment, run in the project without a terminal."""
    binary = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{binary}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        [str(binary / command[0]), *command[1:]],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
    )


def snakemake(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return call(project, "snakemake", "--profile", "profiles/local", *arguments)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project where the smoke DAG has run."""
    folder = tmp_path_factory.mktemp("project")
    for name in PARTS_OF_PROJECT:
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, folder / name)
    main = folder / "config" / "config.yaml"
    main.write_text(main.read_text().replace("scale: sample", "scale: smoke"))
    ran = snakemake(folder)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return folder


def test_tables_and_report_are_there(project: Path) -> None:
    tables = project / "results" / "tables" / "smoke"
    with (tables / "encoders.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["experiment"] for row in rows] == ["lstm", "gru", "ligru", "transformer"]
    assert (tables / "encoders.md").read_text().count("| transformer") == 1
    assert "\\begin{tabular}" in (tables / "encoders.tex").read_text()
    page = (project / "results" / "report" / "smoke.html").read_text()
    assert "Encoders on equal terms" in page
    assert "<svg" in page


def test_nothing_is_left_over(project: Path) -> None:
    trained = {path.name for path in (project / "results" / "train").iterdir()}
    left = {path.relative_to(project / "checkpoints") for path in project.glob("checkpoints/*/*")}
    assert left == {Path("logits") / name for name in trained}, "what models say, for searches"
    assert not list(project.glob("*/*/.*.part"))


def test_a_second_run_says_that_nothing_is_to_be_done(project: Path) -> None:
    started = time.monotonic()
    ran = snakemake(project)
    assert ran.returncode == 0
    assert "Nothing to be done" in ran.stdout + ran.stderr
    assert time.monotonic() - started < 20


def test_results_stay_valid_when_everything_looks_older_or_newer(project: Path) -> None:
    """A fresh clone gives files arbitrary ages; content decides, not age."""
    for number, path in enumerate(sorted(project.glob("*/*/*/*"))):
        os.utime(path, (1_600_000_000 + 7919 * number % 10_000,) * 2)
    shutil.rmtree(project / ".snakemake")
    assert "Nothing to be done" in snakemake(project, "-n").stdout


def test_a_removed_table_is_made_again_without_any_training(project: Path) -> None:
    (project / "results" / "tables" / "smoke" / "encoders.md").unlink()
    assert job_counts(snakemake(project, "-n")) == {"all": 1, "table_encoders": 1, "total": 2}
    assert snakemake(project).returncode == 0


def test_a_run_asked_for_again_is_made_again(project: Path) -> None:
    (receipt,) = project.glob("results/score/gru-*/run.json")
    before = receipt.read_text()
    target = str(receipt.relative_to(project))
    assert snakemake(project, "--force", "--", target).returncode == 0
    assert receipt.read_text() != before


def test_columns_of_what_models_cost_need_no_new_training(project: Path) -> None:
    encoder = {"model": {"encoder": {"name": "ds2", "unit": "gru"}}}
    columns = ["train_step", "saved_mb", "wer/test-clean"]
    study = write_study(project, "costs", columns=columns, experiments={"gru": encoder})
    wanted = ("--config", "studies=costs", "--", "tables")
    counts = {"measure_study": 1, "table_costs": 1, "tables": 1, "total": 3}
    assert job_counts(snakemake(project, "-n", *wanted)) == counts
    ran = snakemake(project, *wanted)
    assert ran.returncode == 0, ran.stderr
    study.unlink()
    with (project / "results/tables/smoke/costs.csv").open() as stream:
        (row,) = csv.DictReader(stream)
    assert float(row["train_step.mean"]) == 1.0
    assert float(row["saved_mb.mean"]) > 0
    assert row["wer/test-clean.mean"]


def recordings(project: Path, count: int) -> list[tuple[str, bytes, str]]:
    """Some utterances of test-clean: id, FLAC bytes, transcript."""
    (archive,) = project.glob("data/archives/sample-test-clean-*/test-clean.tar.gz")
    found: list[tuple[str, bytes]] = []
    texts: dict[str, str] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            stream = tar.extractfile(member)
            if stream is None:
                continue
            if member.name.endswith(".flac"):
                found.append((Path(member.name).stem, stream.read()))
            elif member.name.endswith(".trans.txt"):
                for line in stream.read().decode().splitlines():
                    name, _, text = line.partition(" ")
                    texts[name] = text
    return [(name, payload, texts[name]) for name, payload in found[:count]]


def test_transcribe_reads_any_format_rate_and_length(project: Path, tmp_path: Path) -> None:
    (name, payload, _), *more = recordings(project, 8)
    flac = tmp_path / f"{name}.flac"
    flac.write_bytes(payload)
    samples, rate = soundfile.read(io.BytesIO(payload))
    stereo = tmp_path / "stereo.wav"
    soundfile.write(stereo, np.repeat(np.stack([samples, samples], axis=1), 3, axis=0), 3 * rate)
    long = tmp_path / "long.ogg"
    joined = np.concatenate([soundfile.read(io.BytesIO(p))[0] for _, p, _ in more] * 2)
    soundfile.write(long, joined, rate)
    ran = call(project, "lightasr", "transcribe", "ligru", str(flac), str(stereo), str(long))
    assert ran.returncode == 0, ran.stderr
    lines = [line.split("\t") for line in ran.stdout.splitlines()]
    assert [line[0] for line in lines] == [str(flac), str(stereo), str(long)]


@pytest.mark.parametrize("decoder", ["greedy", "beam"])
def test_evaluate_gives_the_numbers_of_the_workflow(
    project: Path, tmp_path: Path, decoder: str
) -> None:
    """The same utterances through `evaluate` and through the DAG: the same errors."""
    everything = recordings(project, 10_000)
    lines = ["id\tspeaker\taudio\ttext"]
    for name, payload, text in everything:
        (tmp_path / f"{name}.flac").write_bytes(payload)
        lines.append(f"{name}\t{name.split('-')[0]}\t{name}.flac\t{text.lower()}")
    (tmp_path / "mine.tsv").write_text("\n".join(lines) + "\n")
    out = tmp_path / "result.json"
    manifest = ["--manifest", str(tmp_path / "mine.tsv"), "--json", str(out)]
    ran = call(project, "lightasr", "evaluate", "encoders/gru", *manifest, "--decoder", decoder)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("WER ")
    result = json.loads(out.read_text())
    (score,) = project.glob("results/score/gru-*/scores.json")
    expected = json.loads(score.read_text())["test-clean"][decoder]
    for count in ("words", "utterances", "speakers", "chars"):
        assert result[count] == expected[count]
    assert result["wer"] == pytest.approx(expected["wer"], abs=0.02), "lilcom rounds features"
    assert result["seconds"] > 0


def refused(project: Path, *command: str) -> str:
    """What a command that must be refused says: one message, no traceback."""
    ran = call(project, "lightasr", *command)
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    assert ran.stdout == ""
    said = [line for line in ran.stderr.splitlines() if line.startswith("lightasr: ")]
    assert len(said) == 1
    return said[0]


def test_bad_audio_is_named(project: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.wav"
    for payload in (b"", b"RIFF nonsense"):
        bad.write_bytes(payload)
        assert str(bad) in refused(project, "transcribe", "lstm", str(bad))
    assert "no such audio file" in refused(project, "transcribe", "lstm", str(tmp_path / "none"))


def test_a_run_nobody_knows_is_refused_with_the_nearest(project: Path, tmp_path: Path) -> None:
    audio = tmp_path / "a.wav"
    soundfile.write(audio, np.zeros(16000), 16000)
    said = refused(project, "transcribe", "lstn", str(audio))
    assert "no run 'lstn'" in said
    assert "did you mean 'lstm'?" in said


def test_a_run_that_is_not_finished_is_refused(project: Path, tmp_path: Path) -> None:
    audio = tmp_path / "a.wav"
    soundfile.write(audio, np.zeros(16000), 16000)
    said = refused(project, "transcribe", "lstm", str(audio), "--scale", "sample")
    assert "'lstm' is not trained yet" in said
    assert "snakemake --profile profiles/local -- results/train/lstm-" in said


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("id\tspeaker\taudio\n1\t1\ta.flac\n", "no column 'text'"),
        ("id\tspeaker\taudio\ttext\n1\t1\tnone.flac\tHELLO\n", "no audio file"),
        ("id\tspeaker\taudio\ttext\n1\t1\ta.flac\n", ":2: 3 fields, the header has 4"),
        ("id\tspeaker\taudio\ttext\n", "no utterances"),
        ("", "no header"),
    ],
    ids=["column", "audio", "fields", "no-lines", "empty"],
)
def test_a_bad_manifest_is_named(project: Path, tmp_path: Path, text: str, reason: str) -> None:
    manifest = tmp_path / "mine.tsv"
    manifest.write_text(text)
    said = refused(project, "evaluate", "lstm", "--manifest", str(manifest))
    assert str(manifest) in said
    assert reason in said


def test_status_knows_what_is_done_and_what_other_source_made(project: Path) -> None:
    status = json.loads(call(project, "lightasr", "status", "--json").stdout)
    assert all(stage["jobs"] == stage["done"] for stage in status["stages"].values())
    assert status["other_source"] == []
    (receipt,) = project.glob("results/train/gru-*/run.json")
    original = receipt.read_text()
    receipt.write_text(json.dumps({**json.loads(original), "source_digest": "0000000000"}))
    status = json.loads(call(project, "lightasr", "status", "--json").stdout)
    receipt.write_text(original)
    assert [entry["id"] for entry in status["other_source"]] == [receipt.parent.name]


def test_profile_steps_tells_where_the_time_of_a_step_goes(project: Path) -> None:
    ran = call(project, "lightasr", "train", "ligru", "--profile-steps", "3")
    assert ran.returncode == 0, ran.stderr
    first, *sections, trace = ran.stdout.splitlines()
    assert "3 steps on cpu" in first
    names = [line.split()[0] for line in sections]
    assert names == ["data", "forward", "loss", "backward", "optimizer"]
    assert (project / trace.split()[1]).stat().st_size > 1000


def test_one_command_trains_in_several_processes(project: Path) -> None:
    log = ("--log", "logs/train/amp.log")  # as the workflow calls it
    command = ["lightasr", *log, "train", "amp", "--study", "precision", "--devices", "2"]
    ran = call(project, *command)
    assert ran.returncode == 0, ran.stderr
    planned = json.loads(call(project, "lightasr", "plan", "--study", "precision", "--json").stdout)
    (amp,) = [e for e in planned["experiments"] if e["name"] == "amp"]
    receipt = json.loads((project / amp["runs"][0]["train"]["dir"] / "run.json").read_text())
    assert receipt["processes"] == 2
    assert receipt["precision"] == "bf16"
    assert call(project, *command).returncode == 0, "done before"
    shutil.rmtree(project / amp["runs"][0]["train"]["dir"])
