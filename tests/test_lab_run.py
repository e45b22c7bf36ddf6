"""A tiny table end to end: killed, resumed, with a row that fails, and two runs compared."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import filelock
import pytest
import yaml

from byol.errors import UserError
from byol.lab.compare import compare
from byol.lab.plan import Run
from byol.lab.rows import Row
from byol.lab.run import _outcome, ablate
from byol.lab.table import read_plan

TINY: dict[str, Any] = {
    "model": "convnet-4", "image_size": 16, "hidden_size": 16, "projection_size": 8,
    "evaluations": 2, "workers": 0, "final_linear": False, "log_every": 1, "device": "cpu",
}  # fmt: skip
FLAGS = [w for k, v in TINY.items() for w in ("--" + k.replace("_", "-"), str(v).lower())]


def table(path: Path, *rows: Row) -> Path:
    content = {"rows": [{"name": r.name, "overrides": r.overrides} for r in rows]}
    path.write_text(yaml.safe_dump(content))
    return path


def lab(*words: str | Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "byol", "ablate", *map(str, words), *FLAGS]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # where the tests run as a background job, which ignores Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(path: Path, lines: int, process: "subprocess.Popen[str]") -> None:
    """Until the file has so many lines."""
    end = time.monotonic() + 900
    while not path.exists() or path.read_text().count("\n") < lines:
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.02)


@pytest.mark.parametrize(
    "kill",
    [
        pytest.param(signal.SIGKILL, id="killed"),
        pytest.param(signal.SIGINT, id="ctrl-c", marks=pytest.mark.slow),
    ],
)
def test_a_table_is_stopped_half_way_and_goes_on(tmp_path: Path, kill: signal.Signals) -> None:
    mine = table(tmp_path / "mine.yaml", Row("short"), Row("long", {"epochs": 30}), Row("bad"))
    rows = yaml.safe_load(mine.read_text())
    rows["rows"][2]["overrides"] = {"batch_size": 1}
    mine.write_text(yaml.safe_dump(rows))
    out = tmp_path / "out"
    words = (mine, "digits", "--out", out, "--seeds", "1", "--epochs", "2")
    first = lab(*words)
    wait_for(out / "short/seed-0/result.json", 1, first)
    wait_for(out / "long/seed-0/metrics.jsonl", 20, first)
    first.send_signal(kill)
    first.communicate()
    if kill == signal.SIGINT:
        assert first.returncode == 130
    with filelock.FileLock(out / "long/seed-0/.lock").acquire(timeout=600):
        pass  # no run outlives its lab
    assert not (out / "long/seed-0/result.json").exists()
    reached = len((out / "long/seed-0/metrics.jsonl").read_text().split("\n"))
    before = (out / "short/seed-0/result.json").stat().st_mtime_ns

    second = lab(*words, "--jobs", "2")
    text, errors = second.communicate()
    assert second.returncode == 0, errors
    assert "3 runs, 1 of them done" in text
    assert (out / "short/seed-0/result.json").stat().st_mtime_ns == before
    lines = [json.loads(x) for x in (out / "long/seed-0/metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if "lr" in line]
    assert steps == list(range(1, len(steps) + 1))  # it went on where it had stopped, to the end
    assert len(lines) > reached > 20
    summary = json.loads((out / "table.json").read_text())
    assert [row["missing"] for row in summary["rows"]] == [0, 0, 1]
    assert "batch_size 1 does not split" in summary["rows"][2]["failed"][0]
    assert "| bad | – |" in text and "failed: batch_size 1" in text

    shown = compare(out / "short/seed-0", out / "long/seed-0", tmp_path / "both.png")
    differing = [line.split() for line in shown.split("\n") if line.startswith("optim.epochs")]
    assert differing == [["optim.epochs", "2", "30"]]
    assert "objective.beta" not in shown and "knn.trained" in shown
    assert (tmp_path / "both.png").stat().st_size > 1000


def finished(folder: Path, name: str, knn: float) -> None:
    """A run folder's result, made by hand."""
    (folder / name).mkdir(parents=True)
    result = {"knn": {"trained": knn, "untrained": 20.0}, "collapse": {"verdict": "healthy"}}
    (folder / name / "result.json").write_text(json.dumps(result))


def test_a_finished_table_runs_nothing_and_other_options_are_refused(tmp_path: Path) -> None:
    mine = table(tmp_path / "mine.yaml", Row("a"), Row("b", {"base_lr": "x2"}))
    finished(tmp_path / "out", "a/seed-0", 50.0)
    finished(tmp_path / "out", "b/seed-0", 55.0)
    said: list[str] = []
    words: dict[str, Any] = {"data": "digits", "out": tmp_path / "out", "seeds": 1}
    summary = ablate(str(mine), **words, say=said.append, **TINY)
    assert "2 runs, 2 of them done" in said[0]
    assert [row["difference"] for row in summary["rows"]] == [0.0, 5.0]
    _, runs = read_plan(tmp_path / "out")
    assert [run["folder"] for run in runs] == ["a/seed-0", "b/seed-0"]
    with pytest.raises(UserError, match="--epochs 7"):
        ablate(str(mine), **words, say=said.append, epochs=7, **TINY)


def test_the_reason_of_a_failure_is_the_last_line_of_its_log(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/seed-0.log").write_text("a warning\nbyol: the disk is full\n\n")
    run = Run(Row("a"), 0, "a/seed-0", {}, ())
    ended = subprocess.Popen([sys.executable, "-c", "raise SystemExit(2)"])
    ended.wait()
    assert _outcome(tmp_path, run, ended) == "failed: the disk is full"  # type: ignore[arg-type]
    assert (tmp_path / "a/seed-0.failed").read_text() == "the disk is full\n"


@pytest.mark.parametrize("wrong", [{"seeds": 0}, {"jobs": 0}, {"epoch": 3}])
def test_mistakes_are_refused_before_anything_runs(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(UserError):
        ablate("table5a", "digits", tmp_path / "out", **wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_compare_refuses_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.yaml"):
        compare(tmp_path, tmp_path)
