"""LARS against the official code, and who is excluded."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from byol.networks.convnet import ConvNet
from byol.optim import LARS, param_groups
from tests.haiku import unpack


def _is_excluded(name: str) -> bool:
    module, tensor = name.split("|")
    return tensor == "b" or "norm" in module


@pytest.mark.parametrize("case", range(5))
def test_official_steps(case: int, golden: Callable[[str], Any]) -> None:
    data = golden("lars")

    def tree(key: str) -> dict[str, Tensor]:
        flat = unpack(data["param_names"], data["param_shapes"], data[f"case{case}/{key}"])
        return {name: torch.from_numpy(value.copy()) for name, value in flat.items()}

    decay, excluding = float(data[f"case{case}/weight_decay"]), data[f"case{case}/use_exclusion"]
    weights = tree("init")
    out = [name for name in weights if excluding and _is_excluded(name)]
    optimizer = LARS(
        [
            {"params": [w for n, w in weights.items() if n not in out], "weight_decay": decay},
            {"params": [weights[n] for n in out], "weight_decay": 0.0, "adapt": False},
        ],
        lr=0.0,
        momentum=float(data[f"case{case}/momentum"]),
        trust_coefficient=float(data[f"case{case}/eta"]),
    )
    for step, lr in enumerate(data["lr"]):
        gradients = tree(f"step{step}/grad")
        for name, w in weights.items():
            w.grad = gradients[name]
        for group in optimizer.param_groups:
            group["lr"] = float(lr)
        optimizer.step()
        after, momentum = tree(f"step{step}/param"), tree(f"step{step}/momentum")
        for name, w in weights.items():
            buffer = optimizer.state[w]["momentum_buffer"]
            torch.testing.assert_close(w, after[name], rtol=1e-12, atol=1e-14)
            torch.testing.assert_close(buffer, momentum[name], rtol=1e-12, atol=1e-14)


def test_two_steps_by_hand() -> None:
    w = nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
    optimizer = LARS([w], lr=0.2, weight_decay=1e-6)
    for gradient, buffer, weight in (
        ([0.6, 0.8], [0.003, 0.004], [2.9994, 3.9992]),
        ([-0.6, 0.8], [-2.99380808e-4, 7.59921439e-3], [2.99945987616, 3.99768015712]),
    ):
        w.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        m = optimizer.state[w]["momentum_buffer"]
        np.testing.assert_allclose(m, buffer, rtol=2e-9)
        np.testing.assert_allclose(w.detach(), weight, rtol=1e-11)


def test_without_adaptation_it_is_sgd() -> None:
    ours, theirs = (nn.Parameter(torch.ones(3, 2)) for _ in range(2))
    lars = LARS([{"params": [ours], "adapt": False}], lr=0.1, weight_decay=0.01)
    sgd = torch.optim.SGD([theirs], lr=0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(5):
        ours.grad, theirs.grad = (torch.full((3, 2), 0.5) for _ in range(2))
        lars.step(), sgd.step()
    torch.testing.assert_close(ours, theirs)


def test_tensors_without_gradient_stay() -> None:
    still, moving = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = LARS([still, moving], lr=1.0, weight_decay=0.1)
    moving.grad = torch.ones(2)
    optimizer.step()
    assert still.tolist() == [1, 1] and still not in optimizer.state
    np.testing.assert_allclose(moving.detach(), 0.999, rtol=1e-6)


def test_state_survives_saving() -> None:
    first, second = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))
    a, b = (LARS([w], lr=0.5) for w in (first, second))
    first.grad = torch.arange(4.0)
    a.step()
    second.data.copy_(first.data)
    b.load_state_dict(copy.deepcopy(a.state_dict()))
    second.grad = first.grad.clone()
    a.step(), b.step()
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_param_groups_exclude_biases_and_norms() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.Linear(4, 5), nn.LayerNorm(5)
    )
    net[0].weight.requires_grad_(False)
    adapted, excluded = param_groups(net, 0.25)
    assert [p.shape for p in adapted["params"]] == [(5, 4)]
    assert len(excluded["params"]) == 1 + 2 + 2 + 1 + 2
    assert (adapted["weight_decay"], adapted["adapt"]) == (0.25, True)
    assert (excluded["weight_decay"], excluded["adapt"]) == (0.0, False)
    everything = {id(p) for p in ConvNet().parameters()}
    groups = param_groups(ConvNet(), 0.1)
    assert sum(len(group["params"]) for group in groups) == len(everything)
