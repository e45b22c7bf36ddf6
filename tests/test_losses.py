"""The loss against the official code, and the contrastive one against a direct double loop."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from byol.losses import info_nce, l2_normalize, normalise, regression_loss
from byol.metrics import accuracy

EXACT: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-13}
CASES = ["case0", "case1", "case2", "case3", "special"]


def _tensor(array: np.ndarray, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.from_numpy(array).to(dtype)


def _assert_rows_close(ours: Tensor, official: np.ndarray, rtol: float) -> None:
    """Gradients relative to the largest value of each row: rows differ by powers of ten.

    A row that is 0 but for rounding (its z is 0) counts as 1e-6, about the smallest of the others.
    """
    largest = np.maximum(abs(official).max(-1, keepdims=True), 1e-6)
    np.testing.assert_allclose(ours.numpy() / largest, official / largest, rtol=0, atol=rtol)


@pytest.mark.parametrize("case", CASES)
def test_values(case: str, golden: Callable[[str], Any]) -> None:
    data = golden("loss")
    p, z = _tensor(data[f"{case}/p"]), _tensor(data[f"{case}/z"])
    np.testing.assert_allclose(l2_normalize(p), data[f"{case}/l2_normalize_p"], **EXACT)
    np.testing.assert_allclose(regression_loss(p, z), data[f"{case}/loss"], **EXACT)
    np.testing.assert_allclose(
        regression_loss(p.float(), z.float()), data[f"{case}/loss"], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_gradients(case: str, reduction: str, golden: Callable[[str], Any]) -> None:
    data = golden("loss")
    p, z = _tensor(data[f"{case}/p"]).requires_grad_(), _tensor(data[f"{case}/z"])
    loss = regression_loss(p, z)
    (gradient,) = torch.autograd.grad(loss.sum() if reduction == "sum" else loss.mean(), p)
    _assert_rows_close(gradient, data[f"{case}/grad_p_of_{reduction}"], 1e-9)


def test_symmetric_total(golden: Callable[[str], Any]) -> None:
    data = golden("loss")
    p1, p2, z1, z2 = (
        _tensor(data[f"symmetric/{name}"])
        for name in (
            "online_prediction_view1",
            "online_prediction_view2",
            "target_projection_view1",
            "target_projection_view2",
        )
    )
    p1.requires_grad_()
    p2.requires_grad_()
    per_sample = regression_loss(p1, z2) + regression_loss(p2, z1)
    np.testing.assert_allclose(per_sample.detach(), data["symmetric/per_sample"], **EXACT)
    total = per_sample.mean()
    assert total.item() == pytest.approx(float(data["symmetric/total"]), rel=1e-12)
    for view, gradient in enumerate(torch.autograd.grad(total, (p1, p2)), 1):
        _assert_rows_close(gradient, data[f"symmetric/grad_prediction_view{view}"], 1e-9)


def test_classifier(golden: Callable[[str], Any]) -> None:
    data = golden("loss")
    logits, labels = _tensor(data["classifier/logits"]), torch.from_numpy(data["classifier/labels"])
    per_sample = nn.functional.cross_entropy(logits, labels, reduction="none")
    np.testing.assert_allclose(per_sample, data["classifier/per_sample"], **EXACT)
    assert per_sample.mean().item() == pytest.approx(float(data["classifier/mean"]), rel=1e-12)
    for k in (1, 5):
        hits = data[f"classifier/top{k}"]
        assert accuracy(logits, labels, k) == pytest.approx(100 * hits.mean(), rel=1e-6)


def test_two_minus_twice_the_cosine() -> None:
    p, z = torch.randn(9, 5).double(), torch.randn(9, 5).double()
    expected = 2 - 2 * nn.functional.cosine_similarity(p, z, dim=-1)
    torch.testing.assert_close(regression_loss(p, z), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    p, z = torch.randn(4, 64).to(dtype), torch.randn(4, 64).to(dtype)
    loss = regression_loss(p, z)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, regression_loss(p.float(), z.float()), rtol=0, atol=0)


def _triple(n: int = 7, d: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    p, other, same = (torch.randn(n, d, dtype=torch.float64) for _ in range(3))
    return p, other, same


def _info_nce_by_loops(p: Tensor, other: Tensor, same: Tensor, alpha: float, beta: float) -> float:
    """The formula as printed: positives 2/B sum S, negatives 2 alpha/B sum ln(...)."""

    def cosine(a: Tensor, b: Tensor) -> float:
        return float(a @ b / (a.norm() * b.norm()))

    n, value = len(p), 0.0
    for i in range(n):
        spread = sum(math.exp(cosine(p[i], same[j]) / alpha) for j in range(n) if j != i)
        spread += sum(math.exp(cosine(p[i], other[j]) / alpha) for j in range(n))
        value += 2 / n * cosine(p[i], other[i]) - beta * 2 * alpha / n * math.log(spread)
    return value


@pytest.mark.parametrize(("alpha", "beta"), [(0.1, 1.0), (0.3, 0.5), (1.0, 0.1), (10.0, 1.0)])
def test_info_nce_equals_a_double_loop(alpha: float, beta: float) -> None:
    p, other, same = _triple()
    expected = 2 - _info_nce_by_loops(p, other, same, alpha, beta)
    assert info_nce(p, other, same, alpha, beta).mean().item() == pytest.approx(expected, rel=1e-12)


def test_info_nce_without_negatives_is_byols_loss() -> None:
    p, other, same = _triple()
    assert torch.equal(info_nce(p, other, same, 0.1, 0.0), regression_loss(p, other))


@pytest.mark.parametrize("alpha", [0.1, 0.5])
def test_simclrs_row_is_nt_xent_times_twice_alpha(alpha: float) -> None:
    """NT-Xent as its paper has it: cross-entropy of 2B - 1 similarities, over all 2B anchors."""
    z1, z2, _ = _triple()
    z = nn.functional.normalize(torch.cat((z1, z2)))
    logits = (z @ z.T / alpha).fill_diagonal_(-math.inf)
    labels = torch.arange(14).roll(7)
    nt_xent = nn.functional.cross_entropy(logits, labels)
    ours = info_nce(z1, z2, z1, alpha, 1.0).mean() + info_nce(z2, z1, z2, alpha, 1.0).mean()
    torch.testing.assert_close(ours / 2, 2 + 2 * alpha * nt_xent, rtol=1e-12, atol=0)


def test_info_nce_is_computed_in_float32_under_autocast() -> None:
    p, other, same = (x.float() for x in _triple(32, 16))
    expected = info_nce(p, other, same, 0.1, 1.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(info_nce(p, other, same, 0.1, 1.0), expected)
        assert info_nce(p.bfloat16(), other, same, 0.1, 1.0).dtype == torch.float32


def test_normalisations_by_hand() -> None:
    x = np.random.default_rng(0).normal(2, 3, (6, 4))
    rows, columns = x - x.mean(1, keepdims=True), x - x.mean(0)
    expected = {
        "l2": x / np.linalg.norm(x, axis=1, keepdims=True),
        "layer": rows / (x.std(1, keepdims=True) * 2),  # 2 is sqrt(D)
        "batch": columns / (x.std(0) * 2),
        "none": x,
    }
    for how, values in expected.items():
        np.testing.assert_allclose(normalise(_tensor(x), how), values, **EXACT)
    p, z = _tensor(x), torch.randn(6, 4, dtype=torch.float64)
    for how in expected:
        distance = (normalise(p, how) - normalise(z, how)).square().sum(1)
        torch.testing.assert_close(regression_loss(p, z, how), distance)
    for how in ("l2", "layer", "batch"):  # on one scale, as the sqrt(D) is there for
        assert normalise(p, how).square().sum(1).mean().item() == pytest.approx(1)
