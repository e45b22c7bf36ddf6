"""What only a CUDA device can show: graphs, compiled views, repeats to the bit."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import byol
from byol import gated, views
from byol.build import build_learner
from byol.config import Config
from byol.data.embedded import textures
from byol.engine.captured import WARM, Captured
from byol.engine.gradients import over_processes
from byol.engine.optimizer import build_optimizer
from byol.engine.processes import ALONE
from byol.engine.step import Step
from byol.options import with_options
from byol.viewspec import PRESETS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA = torch.device("cuda")


def _step(**options: Any) -> Step:
    values = {
        "model": "convnet-8", "image_size": 32, "batch_size": 32, "channels": 3,
        "mean": (0.5,) * 3, "std": (0.25,) * 3, "hidden_size": 32, "projection_size": 16,
        "precision": "fp32",
    }  # fmt: skip
    config = with_options(Config(), {**values, **options})
    learner = build_learner(config).to(CUDA)
    network = over_processes(config, learner, CUDA, ALONE)
    return Step(config, learner, network, build_optimizer(config, learner), None, 100, 0)


def _take(step: Step, number: int, bad: bool = False) -> float:
    generator = torch.Generator().manual_seed(number)
    view1, view2 = torch.rand(2, 32, 3, 32, 32, generator=generator).to(CUDA)
    if bad:
        view1[3] = torch.nan
    found = step.gradients([(view1, view2, torch.zeros(32, dtype=torch.long, device=CUDA))])
    _, tau = step.rates(number)
    assert bool(found.is_bad) == bad
    if bad:
        step.discard()
    else:
        step.update(found, tau)
    return float(found.loss)


def test_a_graph_takes_the_steps_that_launches_take() -> None:
    plain, captured = _step(cuda_graph=False), _step()
    for number in range(WARM + 4):
        assert _take(captured, number) == pytest.approx(_take(plain, number), rel=1e-4)
    assert isinstance(captured._whole, Captured) and captured._whole._graph is not None
    ours, theirs = plain.learner.state_dict(), captured.learner.state_dict()
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_a_bad_step_of_a_graph_leaves_no_trace() -> None:
    step = _step()
    for number in range(WARM + 1):
        _take(step, number)
    before = copy.deepcopy(step.learner.state_dict())
    _take(step, 10, bad=True)
    for name, value in step.learner.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert np.isfinite(_take(step, 11))


def test_a_graph_draws_masks_anew_and_by_the_seed() -> None:
    weight = nn.Parameter(torch.ones(1000, device=CUDA))

    def compute(x: Tensor) -> Tensor:
        loss = nn.functional.dropout(weight * x).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    captured = Captured(compute, [weight])

    def gradient(seed: int) -> Tensor:
        torch.manual_seed(seed)
        captured(torch.ones(1000, device=CUDA))
        assert weight.grad is not None
        found, weight.grad = weight.grad.clone(), None
        return found

    for _ in range(WARM):
        gradient(0)
    first, other, again = gradient(7), gradient(8), gradient(7)
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("compiled", [False, True])
def test_views_of_the_device_are_those_of_the_cpu(compiled: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    crops = torch.randint(0, 256, (16, 2, 3, 64, 64), dtype=torch.uint8, generator=generator)
    given = (PRESETS["natural"], 1, np.zeros(16, np.int64), np.arange(16))
    expected = views.make_views(crops, *given)
    made = gated.make_views(crops.to(CUDA), *given, compiled=compiled)
    for ours, theirs in zip(made, expected, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=0, atol=1e-5)


def test_deterministic_runs_are_equal_to_the_bit(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "recipe": "small-32", "model": "convnet", "epochs": 2, "batch_size": 64,
        "hidden_size": 64, "projection_size": 32, "mode": "quiet", "final_linear": False,
        "deterministic": True,
    }  # fmt: skip
    written = []
    for name in ("a", "b"):
        byol.pretrain(textures(512, seed=3), out=tmp_path / name, **options)
        written.append((tmp_path / name / "encoder.safetensors").read_bytes())
    assert written[0] == written[1]
