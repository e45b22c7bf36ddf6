"""Projector and predictor against the official code, and their parameter counts."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from byol.networks.convnet import init_official_
from byol.networks.encoder import count_parameters
from byol.networks.heads import mlp
from byol.networks.norm import DebiasedBatchNorm
from tests.conftest import GOLDEN
from tests.haiku import export_parameters, export_state, load_haiku_, pack, unpack

CLOSE: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-10}


@pytest.mark.parametrize("case", ["projector", "predictor"])
def test_official_values(case: str, golden: Callable[[str], Any]) -> None:
    train, evaluation = golden("resnet_train"), golden("resnet_eval")
    names, states = train[f"{case}/param_names"], train[f"{case}/state_names"]
    tree = unpack(names, train[f"{case}/param_shapes"], train[f"{case}/param"])
    d_in, d_hidden = tree[f"{case}/linear|w"].shape
    head = mlp(d_in, d_hidden, tree[f"{case}/linear_1|w"].shape[1], norm=DebiasedBatchNorm)
    head = head.double()
    load_haiku_(head, tree, case)
    for t in range(int(train[f"{case}/forwards"])):
        output = head(torch.from_numpy(train[f"{case}/forward{t}/input"]))
        np.testing.assert_allclose(
            output.detach().numpy(), train[f"{case}/forward{t}/output"], **CLOSE
        )
        after = train[f"{case}/forward{t}/state_after"]
        np.testing.assert_allclose(pack(states, export_state(head, case)), after, **CLOSE)
        if t == 0:
            (output * torch.from_numpy(train[f"{case}/grad/cotangent"])).sum().backward()
    gradient = pack(names, export_parameters(head, case, lambda p: p.grad))
    np.testing.assert_allclose(gradient, train[f"{case}/grad/param"], **CLOSE)
    for k in range(2):
        output = head.eval()(torch.from_numpy(evaluation[f"{case}/input{k}"]))
        np.testing.assert_allclose(
            output.detach().numpy(), evaluation[f"{case}/output{k}"], **CLOSE
        )


@pytest.mark.parametrize("case", ["projector", "predictor"])
def test_gradient_of_the_input(case: str, golden: Callable[[str], Any]) -> None:
    train = golden("resnet_train")
    tree = unpack(
        train[f"{case}/param_names"], train[f"{case}/param_shapes"], train[f"{case}/param"]
    )
    d_in, d_hidden = tree[f"{case}/linear|w"].shape
    head = mlp(d_in, d_hidden, tree[f"{case}/linear_1|w"].shape[1], norm=DebiasedBatchNorm)
    load_haiku_(head.double(), tree, case)
    x = torch.from_numpy(train[f"{case}/forward0/input"]).requires_grad_()
    (head(x) * torch.from_numpy(train[f"{case}/grad/cotangent"])).sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), train[f"{case}/grad/input"], **CLOSE)


def test_parameter_counts() -> None:
    for name, count in json.loads((GOLDEN / "param_count.json").read_text())["heads"].items():
        d_in, d_hidden, d_out = (int(part.lstrip("inhdeout")) for part in name.split("_")[1:])
        with torch.device("meta"):
            assert count_parameters(mlp(d_in, d_hidden, d_out)) == count


def test_depths() -> None:
    deep = mlp(4, 8, 3, depth=3)
    assert [type(layer) for layer in deep.children()] == [
        nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear,
    ]  # fmt: skip
    assert deep(torch.randn(5, 4)).shape == (5, 3)
    assert [name for name, _ in mlp(4, 8, 3, depth=1).named_parameters()] == ["0.weight"]
    assert isinstance(mlp(4, 8, 4, depth=0), nn.Identity)
    with pytest.raises(ValueError, match="depth 0"):
        mlp(4, 8, 3, depth=0)


def test_official_initialisation_of_a_head() -> None:
    head = mlp(400, 900, 50)
    init_official_(head)
    first, last = head.get_parameter("0.weight"), head.get_parameter("3.weight")
    assert abs(first.std().item() * 400**0.5 - 0.87963) < 0.005
    assert abs(last.std().item() * 900**0.5 - 0.87963) < 0.01
    assert first.abs().max() <= 2 / 400**0.5
    assert not head.get_parameter("0.bias").any()
