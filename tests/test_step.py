"""One step of the loop: it counts once, or leaves no trace; compiled it is the same."""

import copy
import weakref
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


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"beta": 1.0},
        {"loss_normalisation": "batch", "teacher": -1.0},
        {"compare": "same", "predictor": "closed-form"},
        {"align": 1.0},
        {"directions": "one"},
        {"target": "online"},
    ],
)
def test_a_step_has_the_gradients_of_the_loss(options: dict[str, Any]) -> None:
    """Whether its views are gone through one after the other or together."""
    stepped, whole = _step(**options), _step(**options)
    found = stepped.gradients(_views(0))
    ((view1, view2, _),) = _views(0)
    loss, details = whole.learner(view1, view2, details=True)
    loss.backward()
    torch.testing.assert_close(found.loss, loss.detach(), rtol=1e-6, atol=1e-6)
    for ours, theirs in zip(vars(found.details).values(), vars(details).values(), strict=True):
        assert torch.equal(ours, theirs)
    for name, weight in whole.learner.named_parameters():
        gradient = stepped.learner.get_parameter(name).grad
        assert (weight.grad is None) == (gradient is None), name
        if weight.grad is not None:
            torch.testing.assert_close(gradient, weight.grad, rtol=1e-6, atol=1e-7, msg=name)
    for name, buffer in whole.learner.named_buffers():
        assert torch.equal(stepped.learner.get_buffer(name), buffer), name


def test_a_step_holds_one_view_at_a_time() -> None:
    """No activation of view 1 is alive when view 2 enters the encoder."""
    step = _step()
    kept = list[weakref.ref[torch.Tensor]]()
    alive = list[int]()
    first = next(m for m in step.learner.encoder.modules() if isinstance(m, torch.nn.Conv2d))

    def enter(*_: Any) -> None:
        alive.append(sum(reference() is not None for reference in kept))

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(weakref.ref(tensor))
        return tensor

    first.register_forward_pre_hook(enter)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: keep(t.clone()), lambda t: t):
        step.gradients(_views(0))
    assert len(kept) > 20
    assert alive == [0, 0]


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
