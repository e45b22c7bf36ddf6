"""The loop as a whole: resuming, skipping, stopping, and what a run folder holds."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import byol
from byol import monitor, schedules
from byol.engine.fit import _dropout_seed
from byol.errors import Interrupted, UserError

SMALL: dict[str, Any] = {
    "model": "convnet",
    "epochs": 2,
    "batch_size": 64,
    "image_size": 16,
    "hidden_size": 32,
    "projection_size": 16,
    "workers": 0,
    "evaluations": 2,
    "final_linear": False,
    "mode": "quiet",
}


def pictures(n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    from byol.data.embedded import textures

    images, labels = textures(n, seed=5)
    return images[:, ::2, ::2].copy(), labels


def digest(out: Path) -> str:
    return hashlib.sha256((out / "encoder.safetensors").read_bytes()).hexdigest()


def test_the_run_folder_holds_what_a_person_looks_for(tmp_path: Path) -> None:
    result = byol.pretrain(pictures(), out=tmp_path / "run", **SMALL)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names >= {
        "config.yaml",
        "environment.json",
        "metrics.jsonl",
        "views.png",
        "checkpoints",
        "encoder.safetensors",
        "encoder.json",
        "result.json",
        "curves.png",
        "tensorboard",
    }
    assert result == json.loads((tmp_path / "run" / "result.json").read_text())
    assert set(result["knn"]) == {"trained", "untrained", "raw_pixels"}
    assert result["collapse"]["verdict"] in ("too early", "healthy", "doubtful", "collapsed")
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 2 * 200 // 64
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) <= 2


def stop_at_3(patch: pytest.MonkeyPatch) -> None:
    """From now on a run is asked to stop in its third step."""
    learning_rate = schedules.learning_rate

    def asking(k: int, *rest: Any) -> float:
        if k == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return learning_rate(k, *rest)

    patch.setattr(schedules, "learning_rate", asking)


@pytest.mark.parametrize("optimizer", ["lars", "sgd", "adamw"])
def test_an_interrupted_run_ends_with_the_same_bits(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    optimizer: str,
) -> None:
    """6 steps at once are 3 steps, a stop, and 3 more: mid-epoch, norms and probe included."""
    options = {**SMALL, "optimizer": optimizer, "log_every": 1}
    byol.pretrain(pictures(), out=tmp_path / "whole", **options)

    with monkeypatch.context() as patch:
        stop_at_3(patch)
        with pytest.raises(Interrupted, match="stopped at step 3"):
            byol.pretrain(pictures(), out=tmp_path / "parts", **options)
    assert capfd.readouterr().err.count("stopping after this step and saving") == 1
    byol.pretrain(pictures(), out=tmp_path / "parts", **options)
    assert digest(tmp_path / "whole") == digest(tmp_path / "parts")

    def lines(name: str) -> list[str]:
        return (tmp_path / name / "metrics.jsonl").read_text().splitlines()

    assert lines("whole") == lines("parts")


class Dropping(nn.Sequential):
    """A network whose masks decide what it learns."""

    num_features = 8

    def __init__(self) -> None:
        torch.manual_seed(1)  # where it starts is not the run's to say
        super().__init__(nn.Flatten(), nn.Linear(16 * 16 * 3, 8), nn.Dropout(0.5))


def test_masks_of_an_interrupted_run_are_those_of_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**SMALL, "optimizer": "sgd"}
    byol.pretrain(pictures(), out=tmp_path / "whole", **{**options, "model": Dropping()})
    with monkeypatch.context() as patch:
        stop_at_3(patch)
        with pytest.raises(Interrupted):
            byol.pretrain(pictures(), out=tmp_path / "parts", **{**options, "model": Dropping()})
    byol.pretrain(pictures(), out=tmp_path / "parts", **{**options, "model": Dropping()})
    assert digest(tmp_path / "whole") == digest(tmp_path / "parts")
    seeds = {_dropout_seed(seed, k, rank) for seed in (0, 7) for k in range(9) for rank in range(3)}
    assert len(seeds) == 2 * 9 * 3 and all(0 <= seed < 2**64 for seed in seeds)


@pytest.mark.parametrize(("stops", "steps"), [(False, 6), (True, 1)])
def test_a_collapse_is_said_once_and_ends_the_run_where_asked(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stops: bool,
    steps: int,
) -> None:
    collapsed = monitor.Verdict("collapsed", "all look alike")
    monkeypatch.setattr(monitor, "judge", lambda *numbers: collapsed)
    options = {**SMALL, "evaluations": 6, "stop_on_collapse": stops}
    result = byol.pretrain(pictures(), out=tmp_path / "run", **options)
    assert result["collapse"] == {"verdict": "collapsed", "reason": "all look alike"}
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    measured = [step for line in lines if "verdict" in (step := json.loads(line))]
    assert [line["step"] for line in measured] == list(range(1, steps + 1))
    newest = max((tmp_path / "run" / "checkpoints").iterdir())
    assert newest.name.startswith(f"step-{steps:08d}")
    assert capsys.readouterr().err == "step 1: collapsed: all look alike\n"


def test_the_number_of_workers_changes_nothing(tmp_path: Path, data_dir: Path) -> None:
    for workers in (0, 2):
        options = {**SMALL, "workers": workers, "image_size": 32, "batch_size": 32, "epochs": 0.3}
        out = tmp_path / str(workers)
        byol.pretrain(data_dir / "photos", out=out, **options)
    assert digest(tmp_path / "0") == digest(tmp_path / "2")


def test_measuring_leaves_training_as_it_is(tmp_path: Path) -> None:
    for evaluations in (1, 6):
        options = {**SMALL, "evaluations": evaluations}
        byol.pretrain(pictures(), out=tmp_path / str(evaluations), **options)
    assert digest(tmp_path / "1") == digest(tmp_path / "6")


class Poisoned(nn.Module):
    """Returns features that are not a number at the chosen forwards in training mode."""

    num_features = 8

    def __init__(self, bad: set[int]) -> None:
        super().__init__()
        self.linear, self.bad, self.calls = nn.Linear(16 * 16 * 3, 8), bad, 0

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.linear(x.flatten(1))
        if self.training:
            self.calls += 1
            if (self.calls - 1) // 2 in self.bad:  # two forwards a step
                return features * torch.nan
        return features


def test_a_step_that_is_not_finite_is_skipped_and_counted(tmp_path: Path) -> None:
    options = {**SMALL, "model": Poisoned({1, 3}), "log_every": 1, "optimizer": "sgd"}
    byol.pretrain(pictures(), out=tmp_path / "run", **options)
    lines = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert max(line.get("skipped", 0) for line in lines) == 2
    encoder = byol.load_encoder(tmp_path / "run", encoder=Poisoned(set()))
    assert all(torch.isfinite(weight).all() for weight in encoder.state_dict().values())


def test_ten_such_steps_in_a_row_end_the_run(tmp_path: Path) -> None:
    options = {**SMALL, "model": Poisoned(set(range(1, 99))), "epochs": 6, "optimizer": "sgd"}
    with pytest.raises(UserError, match="10 steps in a row"):
        byol.pretrain(pictures(), out=tmp_path / "run", **options)
    bad = json.loads((tmp_path / "run" / "bad_batch.json").read_text())
    assert bad["step"] == 10 and len(bad["images"]) == 64


def test_accumulated_pieces_are_one_step(tmp_path: Path) -> None:
    """Without batch norm, a batch in 4 pieces gives the gradient of the whole batch."""
    options = {**SMALL, "norm": "group", "precision": "fp32", "optimizer": "sgd", "log_every": 1}
    losses = {}
    for pieces in (1, 4):
        out = tmp_path / str(pieces)
        byol.pretrain(pictures(), out=out, accumulation=pieces, **options)
        lines = [json.loads(x) for x in (out / "metrics.jsonl").read_text().splitlines()]
        losses[pieces] = [line["loss"] for line in lines if "loss" in line]
    assert len(losses[1]) == len(losses[4]) == 6
    np.testing.assert_allclose(losses[1], losses[4], rtol=2e-4)


def test_the_collapse_verdict_tells_the_two_apart(tmp_path: Path) -> None:
    """Without a predictor the projections collapse; with one they do not."""
    verdicts = {}
    for depth in (0, 2):
        options = {
            **SMALL,
            "epochs": 60,
            "predictor_depth": depth,
            "optimizer": "sgd",
            "evaluations": 1,
        }
        result = byol.pretrain(pictures(400), out=tmp_path / str(depth), recipe="demo", **options)
        verdicts[depth] = result["collapse"]["verdict"]
    assert verdicts[0] == "collapsed" and verdicts[2] in ("healthy", "doubtful")


def test_sigkill_at_any_moment(tmp_path: Path) -> None:
    """The short form of benchmarks/kill.py, through the command line."""
    command = [sys.executable, "-m", "byol", "pretrain", "digits", "--quiet", "--model", "convnet"]
    command += "--image-size 32 --epochs 3 --batch-size 32 --hidden-size 64".split()
    command += "--projection-size 32 --save-seconds 0.2 --final-linear false".split()
    subprocess.run([*command, "--out", str(tmp_path / "whole")], check=True)
    for seconds in (0.3, 0.9):
        process = subprocess.Popen([*command, "--out", str(tmp_path / "killed")])
        checkpoints = tmp_path / "killed" / "checkpoints"
        before = set(checkpoints.glob("step-*.pt"))
        while process.poll() is None and set(checkpoints.glob("step-*.pt")) <= before:
            time.sleep(0.01)
        time.sleep(seconds)
        process.kill()
        process.wait()
    subprocess.run([*command, "--out", str(tmp_path / "killed")], check=True)
    assert digest(tmp_path / "whole") == digest(tmp_path / "killed")
