"""Projector and predictor against the official code, and their parameter counts."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from byol.build import build_learner
from byol.config import Config
from byol.networks.convnet import init_official_
from byol.networks.encoder import count_parameters
from byol.networks.heads import ClosedForm, mlp, ridge_regression
from byol.networks.norm import DebiasedBatchNorm
from byol.options import with_options
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


def test_output_norm_has_neither_scale_nor_offset() -> None:
    for norm in (nn.BatchNorm1d, nn.LayerNorm, DebiasedBatchNorm):
        head = mlp(6, 12, 5, depth=3, norm=norm, output_norm=True)
        names = [name for name, _ in head.named_parameters()]
        assert names[-1] == "6.weight" and len(head) == 8  # type: ignore[arg-type]
        y = head(torch.randn(50, 6))
        axis = 1 if norm is nn.LayerNorm else 0
        torch.testing.assert_close(y.mean(axis), torch.zeros_like(y.mean(axis)), atol=1e-5, rtol=0)
        deviations = y.std(axis, correction=0)
        torch.testing.assert_close(deviations, torch.ones_like(deviations), atol=1e-2, rtol=0)


def test_the_closed_form_predictor_is_least_squares() -> None:
    z, t = torch.randn(30, 5).double(), torch.randn(30, 5).double()
    expected = z.numpy() @ np.linalg.lstsq(z.numpy(), t.numpy(), rcond=None)[0]
    np.testing.assert_allclose(ClosedForm(1e-14)(z, t), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("images", [30, 3])
def test_ridge_regression_by_the_normal_equations(images: int) -> None:
    """Also where there are fewer images than features."""
    z, t = torch.randn(images, 5).double(), torch.randn(images, 4).double()
    strength = 0.1 * z.square().sum() / 5
    expected = torch.linalg.solve(z.T @ z + strength * torch.eye(5).double(), z.T @ t)
    torch.testing.assert_close(ridge_regression(z, t, 0.1), expected, rtol=1e-10, atol=1e-12)


def test_no_gradient_passes_the_closed_form() -> None:
    z, t = torch.randn(30, 5).double().requires_grad_(), torch.randn(30, 5).double()
    weights = ridge_regression(z.detach(), t, 1e-6)
    cotangent = torch.randn(30, 5).double()
    (gradient,) = torch.autograd.grad((ClosedForm()(z, t) * cotangent).sum(), z)
    torch.testing.assert_close(gradient, cotangent @ weights.T)


def test_the_closed_form_is_finite_whatever_comes() -> None:
    for z in (torch.zeros(8, 16), torch.ones(8, 16), torch.randn(4, 16)):
        assert ClosedForm()(z, torch.randn(len(z), 16)).isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        assert ClosedForm()(torch.randn(8, 4).bfloat16(), torch.randn(8, 4)).dtype == torch.float32


def test_the_predictor_may_have_a_width_of_its_own() -> None:
    values = {"model": "convnet-4", "hidden_size": 16, "projection_size": 8, "image_size": 16}
    data = {"channels": 3, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    for own, expected in ((None, 16), (24, 24)):
        asked = {**values, **data, "predictor_hidden_size": own}
        learner = build_learner(with_options(Config(), asked))
        assert learner.predictor.get_parameter("0.weight").shape == (expected, 8)
        assert learner.projector.get_parameter("0.weight").shape[0] == 16
