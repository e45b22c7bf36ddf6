"""The same run over one, two and three processes, in float64."""

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from byol import schedules
from byol.build import build_learner
from byol.config import Config
from byol.data.loader import CropSpec, ResidentLoader, Share, positions
from byol.engine.fit import fit
from byol.engine.processes import start
from byol.engine.runfolder import RunFolder
from byol.errors import Interrupted
from byol.monitor import Verdict
from byol.options import with_options
from tests.several import several

pytestmark = pytest.mark.dist
IMAGES, BATCH, STEPS = 37, 12, 20  # no epoch ends with a step
CPU = torch.device("cpu")
OPTIONS: dict[str, Any] = {
    "model": "convnet-4", "image_size": 16, "hidden_size": 16, "projection_size": 8,
    "batch_size": BATCH, "epochs": (STEPS + 0.5) * BATCH / IMAGES, "warmup_epochs": 1,
    "precision": "fp32", "log_every": 1, "evaluations": 2, "channels": 3,
    "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4),
}  # fmt: skip


class NoMonitor:
    """Measures nothing."""

    def observe(self, *_: Any) -> None: ...

    def measure(self, *_: Any) -> tuple[dict[str, float], Verdict]:
        return {"measured": 1.0}, Verdict("too early", "")

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def train(
    folder: Path,
    options: dict[str, Any],
    stop: int | None = None,
    steps: int = STEPS,
    bad: int | None = None,
) -> dict[str, Any]:
    """The loop in float64; losses, gradients, weights and averages. `stop`: SIGTERM at a step,
    which the last process alone receives; `bad`: one that it alone finds not finite."""
    config = with_options(Config(), {**OPTIONS, **options})
    if steps != STEPS:
        config = replace(config, optim=replace(config.optim, epochs=(steps + 0.5) * BATCH / IMAGES))
    gradients: list[Tensor] = []

    def remember(optimizer: Any, *_: Any) -> None:
        if not isinstance(optimizer, ZeroRedundancyOptimizer):  # which steps another one
            gradients.append(_gradient(learner))

    hook = register_optimizer_step_pre_hook(remember)
    learner = build_learner(config).double()
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(IMAGES, 3, 20, 20, generator=generator, dtype=torch.float64)
    with start(wants_gpu=False) as processes, pytest.MonkeyPatch.context() as patch:
        if stop is not None and processes.rank == processes.world - 1:
            patch.setattr(schedules, "learning_rate", _stopping(stop))
        if bad is not None and processes.rank == processes.world - 1:
            answers = (torch.tensor(step != bad) for step in range(steps))
            patch.setattr("byol.engine.step._finite", lambda *_: next(answers))
        loader = ResidentLoader(
            images, torch.zeros(IMAGES, dtype=torch.int64), size=16,
            crops=(CropSpec(), CropSpec()), batch_size=BATCH, seed=0,
            share=Share(processes.rank, processes.world, config.optim.accumulation),
        )  # fmt: skip
        run = RunFolder(folder)
        monitor: Any = NoMonitor() if processes.is_main else None
        if processes.is_main:
            run.__enter__()
            run.match_config({})
        processes.gather(None)
        try:
            fit(
                config, learner, loader, monitor, run, IMAGES, CPU, "quiet",
                lambda learner: None, processes,
            )  # fmt: skip
        except Interrupted as error:
            assert stop is not None and f"step {stop + 1} " in str(error)
        finally:
            hook.remove()
            if processes.is_main:
                run.__exit__(None, None, None)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    losses = [float(line.split('"loss": ')[1].split(",")[0]) for line in lines if "loss" in line]
    return {
        "losses": losses,
        "gradients": [gradient.numpy() for gradient in gradients],
        "state": {name: value.numpy() for name, value in learner.state_dict().items()},
    }


def _gradient(learner: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in learner.parameters() if p.grad is not None])


def _stopping(stop: int) -> Any:
    learning_rate = schedules.learning_rate

    def stopped(k: int, *rest: Any) -> float:
        if k == stop:
            os.kill(os.getpid(), signal.SIGTERM)
        return learning_rate(k, *rest)

    return stopped


def close(found: dict[str, Any], expected: dict[str, Any], relative: float = 1e-8) -> None:
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=relative)
    for step, (a, b) in enumerate(zip(found["gradients"], expected["gradients"], strict=True)):
        assert np.abs(a - b).max() <= relative * np.abs(b).max(), f"gradient of step {step}"
    for name, value in expected["state"].items():
        error = np.abs(found["state"][name] - value).max()
        # A bias before a norm has no gradient: it is 0 but for rounding.
        assert error <= relative * np.abs(value).max() + 1e-14, (name, error)


@pytest.mark.parametrize(
    ("world", "options"),
    [
        (2, {}),
        (3, {"accumulation": 2}),
        (2, {"norm_images": 4}),  # groups within and across two processes of 6 images
        (2, {"target": "online", "stop_gradient": False, "beta": 1.0, "accumulation": 2}),
        (3, {"predictor": "closed-form", "loss_normalisation": "batch"}),
        (3, {"norm_images": 4, "reference": True, "shard_optimizer": True}),
    ],
)
def test_several_processes_are_one(tmp_path: Path, world: int, options: dict[str, Any]) -> None:
    """20 steps of every kind of group: losses, gradients, weights, averages of both networks."""
    alone = several(1, train, tmp_path / "one", options)[0]
    assert len(alone["losses"]) == len(alone["gradients"]) == STEPS
    both = options.get("target") != "online"
    assert both == any("target_encoder" in n and "running_var" in n for n in alone["state"])
    for found in several(world, train, tmp_path / "several", options):
        close(found, alone)


@pytest.mark.slow
@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("world", [2, 3])
def test_a_resnet_over_several_processes(tmp_path: Path, world: int, accumulation: int) -> None:
    options = {"model": "resnet18", "accumulation": accumulation, "base_lr": 0.02}
    alone = several(1, train, tmp_path / "one", options)[0]
    for found in several(world, train, tmp_path / "several", options):
        close(found, alone)


def test_a_step_that_one_finds_bad_is_skipped_by_all(tmp_path: Path) -> None:
    alone = several(1, train, tmp_path / "one", {}, None, STEPS, 4)[0]
    assert len(alone["gradients"]) == STEPS - 1
    for found in several(3, train, tmp_path / "three", {}, None, STEPS, 4):
        close(found, alone)


def test_per_process_norms_are_groups_of_a_process(tmp_path: Path) -> None:
    alone = several(1, train, tmp_path / "one", {"norm_images": 6})[0]
    for found in several(2, train, tmp_path / "two", {"norm_over": "process"}):
        close(found, alone)


@pytest.mark.parametrize("options", [{}, {"shard_optimizer": True, "accumulation": 2}])
def test_two_then_three_then_one_process_are_one_run(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    """SIGTERM reaches one process; all save at that step, and another number goes on."""
    alone = several(1, train, tmp_path / "one", options)[0]
    several(2, train, tmp_path / "parts", options, 6)
    several(3, train, tmp_path / "parts", options, 13)
    found = several(1, train, tmp_path / "parts", options)[0]
    found["gradients"] = [*alone["gradients"][:14], *found["gradients"]]
    assert len(found["gradients"]) == STEPS
    close(found, alone)


@pytest.mark.parametrize(("world", "pieces"), [(2, 1), (3, 2), (4, 3), (1, 4)])
def test_shares_of_a_step_are_its_images_once_and_in_order(world: int, pieces: int) -> None:
    for step in (0, 3):  # the second holds the end of an epoch
        _, index = positions(0, IMAGES, BATCH * 2, step)
        parts = [Share(rank, world, pieces).of(index).reshape(pieces, -1) for rank in range(world)]
        np.testing.assert_array_equal(np.concatenate(parts, 1).reshape(-1), index)


def test_compressed_gradients_are_near(tmp_path: Path) -> None:
    alone = several(1, train, tmp_path / "one", {}, None, 3)[0]
    for found in several(2, train, tmp_path / "two", {"compress_gradients": True}, None, 3):
        close(found, alone, 0.05)
        assert np.abs(found["gradients"][0] - alone["gradients"][0]).max() > 0
