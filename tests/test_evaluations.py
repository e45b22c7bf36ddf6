"""The runner of every evaluation: what it gives, waits for, survives and brings home."""

import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import evaluations
from benchmarks.shown.markdown import where
from benchmarks.shown.results import evaluation


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """What was given; nothing is run, detection fails, a picture is drawn."""
    given: list[list[str]] = []

    def give(words: list[str], log: Path, limit: float | None) -> tuple[int, float]:
        given.append(words)
        log.write_text(f"{words[1]}\n")
        if words[1] == "detect":
            return 2, 1.0
        out = Path(words[words.index("--out") + 1])
        row = {"top1": 50.0, "miou": 20.0, "rms": 0.5}
        result = {"rows": {"trained": row}, "metrics": dict.fromkeys(row, "")}
        machine = {"cpu": "one", "threads": 1, "python": "3", "packages": {"torch": "2"}}
        machine |= {"devices": ["a GPU"], "command": ["byol"]}
        written = {"result": result, "environment": machine}
        (out / f"{words[1]}.json").write_text(json.dumps(written))
        if words[1] == "supervised":
            (out / "supervised").mkdir()
            (out / "supervised" / "encoder.safetensors").touch()
        if words[1] == "segment":
            noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8)
            Image.fromarray(noise).save(out / "segment.png")
        return 0, 7.0

    monkeypatch.setattr(evaluations, "give", give)
    monkeypatch.setenv("BYOL_DATA", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return given


def run(monkeypatch: pytest.MonkeyPatch, *words: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluations.py", *map(str, words)])
    evaluations.main()


def test_what_is_written_comes_home(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A command that fails is left out, the others are not; the pictures are small."""
    scenes = tmp_path / "runs" / "scenes"
    scenes.mkdir(parents=True)
    (scenes / "encoder.safetensors").touch()
    results, home = tmp_path / "results", tmp_path / "home.tar.gz"
    run(monkeypatch, "--scenes", scenes, "--jobs", 3, "--results", results, "--out", home)
    assert {words[1] for words in commands} == {"knn", "linear", "segment", "detect", "depth"}
    assert not (results / "evaluate-detect.json").exists()
    table = json.loads((results / "evaluate-segment.json").read_text())
    assert table["seconds"] == 7 and table["command"].startswith("byol evaluate segment runs/")
    assert "| trained | 50.0 | 20.0 | 0.500 |" in evaluation(table)
    assert "a GPU, Python 3" in evaluation(table) and "one" not in where(table)
    picture = results / "segment.png"
    assert 10_000 < picture.stat().st_size < evaluations.PICTURE_BYTES
    with tarfile.open(home) as tar:
        names = set(tar.getnames())
    assert {"results/segment.png", "results/evaluate-depth.json"} < names
    assert "runs/scenes/detect/log.txt" in names  # says why there is no table


@pytest.mark.parametrize("jobs", [1, 4])
def test_tables_of_features_wait_for_the_network_from_scratch(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, jobs: int
) -> None:
    names = ["cifar-knn", "cifar-linear", "cifar-supervised"]
    run(monkeypatch, *names, "--cifar", tmp_path, "--jobs", jobs, "--results", tmp_path)
    assert [words[1] for words in commands][0] == "supervised"
    scratch = str(tmp_path / "cifar-supervised" / "supervised")
    assert all(scratch in words for words in commands[1:]) and len(commands) == 3
    table = json.loads((tmp_path / "evaluate-cifar-knn.json").read_text())
    assert table["command"].endswith("--beside runs/cifar/evaluations/supervised")


def test_a_command_that_takes_too_long_is_stopped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", "sleep")  # "sleep -m byol 60" ends at once
    code, _ = evaluations.give(["60"], tmp_path / "log", None)
    assert code != 0
    (tmp_path / "slow").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "slow").chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "slow"))
    code, seconds = evaluations.give([], tmp_path / "log", 0.2)
    assert code != 0 and seconds < 30
    assert "stopped after 0.2 seconds" in (tmp_path / "log").read_text()


def test_names_without_their_run_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "segment", "--cifar", tmp_path)
    assert "segment is no command of the runs given" in capsys.readouterr().err
