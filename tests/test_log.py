"""metrics.jsonl, TensorBoard events and the progress lines."""

import errno
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from byol.engine import log
from byol.errors import UserError


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def write(folder: Path, resume_step: int, *steps: int) -> None:
    with log.Log(folder, resume_step) as written:
        for step in steps:
            written.write(step, loss=1.0 / (step + 1), started_at=float(resume_step))


def test_lines_are_json_and_nan_is_null(tmp_path: Path) -> None:
    written = log.Log(tmp_path, 0)
    written.write(10, loss=float("nan"), lr=0.2, verdict="healthy", knn=None, epoch=3)
    assert lines(tmp_path) == [  # readable before the log is closed
        {"step": 10, "loss": None, "lr": 0.2, "verdict": "healthy", "knn": None, "epoch": 3}
    ]
    written.close()


def test_resume_cuts_later_and_half_written_lines(tmp_path: Path) -> None:
    write(tmp_path, 0, 0, 10, 20, 30)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 20, "lo')
    write(tmp_path, 20, 30, 40)
    assert [(x["step"], x["started_at"]) for x in lines(tmp_path)] == [
        (0, 0), (10, 0), (20, 0), (30, 20), (40, 20),
    ]  # fmt: skip


def test_half_written_last_line_of_an_early_step(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 5}\n{"step": 6}')
    write(tmp_path, 20)
    assert lines(tmp_path) == [{"step": 5}]


def test_from_the_beginning_empties_the_log(tmp_path: Path) -> None:
    write(tmp_path, 0, 0, 10)
    write(tmp_path, 0, 0)
    assert [x["step"] for x in lines(tmp_path)] == [0]


def test_tensorboard_reads_one_curve_after_a_resume(tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    write(tmp_path, 0, 10, 20, 30)
    write(tmp_path, 20, 30, 40)
    read = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    points = read.Scalars("started_at")
    assert [(x.step, x.value) for x in points] == [(10, 0), (20, 0), (30, 20), (40, 20)]


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = log.Log(tmp_path, 0)

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(UserError, match=r"disk is full: .*metrics\.jsonl"):
        written.write(10, loss=1.0)
    monkeypatch.undo()
    written.close()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("byol.engine.log.time.monotonic", clock)
    return clock


def test_plain_lines_every_ten_seconds_and_at_the_end(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with log.Progress(1000, 64, 100, "plain", "run") as progress:
        progress.advance(100, 0.0)
        for step in range(101, 126):
            clock.now += 1.0
            progress.advance(step, 0.25, loss=1.5, tau=0.99996)
        progress.say("kNN 45 %")
    out = capsys.readouterr().out.splitlines()
    expected = (
        "run: step 110/1000 | 64 images/s | 14 min 50 s left | waiting for data 25% | loss 1.5 | "
        "tau 0.99996"
    )
    assert out[0] == expected
    assert [line[:13] for line in out] == [
        "run: step 110", "run: step 120", "kNN 45 %", "run: step 125",
    ]  # fmt: skip


def test_speed_follows_recent_steps_and_starts_at_the_resume(clock: Clock) -> None:
    with log.Progress(10_000, 10, 5000, "quiet", "run") as progress:
        clock.now += 60.0  # the first step compiles
        progress.advance(5001, 0.0)
        assert "step 5001/10000 | 0.2 images/s" in progress.line()
        for step in range(5002, 5011):
            clock.now += 1.0
            progress.advance(step, 0.0)
        assert "step 5010/10000 | 10 images/s | 1 h 23 min left" in progress.line()


def test_a_run_that_waits_for_data_says_so_once(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(progress: log.Progress, seconds: int, waited: float) -> str:
        for _ in range(seconds):
            clock.now += 1.0
            progress.advance(progress._step + 1, waited)
        return "\n".join(x for x in capsys.readouterr().out.splitlines() if "--workers" in x)

    with log.Progress(10_000, 10, 0, "plain", "run") as progress:
        assert run(progress, 5, 0.5) == ""  # it may be a moment
        assert run(progress, 200, 0.0) == ""
        assert run(progress, 300, 0.04) == ""
        sentence = run(progress, 120, 0.2)
        assert "% of the time is spent waiting for data" in sentence and "\n" not in sentence
        assert run(progress, 120, 0.0) + run(progress, 120, 0.5) == ""


def test_quiet_prints_warnings_alone(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    with log.Progress(10, 1, 0, "quiet", "run") as progress:
        clock.now += 20
        progress.advance(10, 0.0, loss=1.0)
        progress.say("a remark")
        progress.say("a warning", warning=True)
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == "a warning\n"


def test_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120, _environ={"TERM": "xterm"})
    monkeypatch.setattr("byol.engine.log.Console", lambda: console)
    with log.Progress(10, 8, 0, "auto", "[run]") as progress:
        progress.advance(5, 0.0, loss=0.5)
        progress.say("[kept] as it is")
        progress.advance(10, 0.0, knn=45.0)
    text = screen.getvalue()
    assert "[kept] as it is" in text and "[run]" in text
    assert "step 10/10" in text and "knn 45" in text


def test_auto_is_plain_where_output_is_no_terminal(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with log.Progress(10, 1, 0, "auto", "run") as progress:
        clock.now += 1.0
        progress.advance(10, 0.0)
    assert capsys.readouterr().out == (
        "run: step 10/10 | 10 images/s | 0 s left | waiting for data 0%\n"
    )


def test_durations() -> None:
    assert [log.duration(s) for s in (44.6, 250, 7500, 273_600)] == [
        "45 s", "4 min 10 s", "2 h 05 min", "3 d 4 h",
    ]  # fmt: skip
