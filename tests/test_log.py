"""metrics.jsonl and TensorBoard events."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

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
