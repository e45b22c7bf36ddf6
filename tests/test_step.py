"""One step of the loop: it counts once, or leaves no trace; compiled it is the same."""

import copy
from typing import Any

import pytest
import torch

from byol.build import build_learner
from byol.config import Config
from byol.engine.gradients import over_processes
from byol.engine.optimizer import build_optimizer
from byol.engine.processes import ALONE
from byol.engine.step import Step
from byol.options import with_options

CPU = torch.device("cpu")


def _step(**options: Any) -> Step:
    values = {
        "model": "convnet-4", "image_size": 16, "batch_size": 8, "channels": 3, "mean": (0.5,) * 3,
        "std": (0.25,) * 3, "hidden_size": 16, "projection_size": 8, "precision": "fp32",
    }  # fmt: skip
    config = with_options(Config(), {**values, **options})
    learner = build_learner(config)
    network = over_processes(config, learner, CPU, ALONE)
    return Step(config, learner, network, build_optimizer(config, learner), None, 100, 0)


def _views(seed: int) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    view1, view2 = torch.rand(2, 8, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    return [(view1, view2, torch.zeros(8, dtype=torch.long))]


def _take(step: Step, number: int) -> float:
    found = step.gradients(_views(number))
    _, tau = step.rates(number)
    assert not found.is_bad
    step.update(found, tau)
    return float(found.loss)


@pytest.mark.parametrize("where", ["view", "gradient"])
def test_a_bad_step_leaves_no_trace(where: str) -> None:
    step = _step()
    _take(step, 0)
    weights = copy.deepcopy(step.learner.state_dict())
    state = copy.deepcopy(step.optimizer.state_dict())
    views = _views(1)
    if where == "view":
        views[0][0][3] = torch.nan
    else:  # the loss is finite, one value of one gradient is not
        weight = next(step.learner.predictor.parameters())
        weight.register_hook(lambda g: g.index_fill(0, torch.tensor(0), torch.inf))
    found = step.gradients(views)
    assert found.is_bad
    step.discard()
    for name, value in step.learner.state_dict().items():
        assert torch.equal(value, weights[name]), name
    for key, buffers in step.optimizer.state_dict()["state"].items():
        assert torch.equal(buffers["momentum_buffer"], state["state"][key]["momentum_buffer"])


@pytest.mark.slow
def test_compiled_networks_take_the_same_steps() -> None:
    """Norm statistics stay those of one view, and count both."""
    plain, compiled = _step(), _step(compile=True)
    for number in range(3):
        assert _take(compiled, number) == pytest.approx(_take(plain, number), rel=1e-4)
    ours, theirs = plain.learner.state_dict(), compiled.learner.state_dict()
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-3, atol=1e-4, msg=name)
    assert ours["encoder.module.layers.0.1.num_batches_tracked"] == 6
