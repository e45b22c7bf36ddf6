"""The path of logistic regressions, against scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from byol.tasks.logistic import STRENGTHS, Regression, fit, path

K = 4


def _drawn(n: int, d: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Overlapping classes, on axes of very different length far from the origin."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(n) % K
    centres = torch.randn(K, d, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, d, generator=generator, dtype=torch.float64)
    length = 3 * torch.arange(1, d + 1) ** -0.7
    return ((0.4 * centres[labels] + noise) * length + 5).to(dtype), labels


def _sklearn(x: Tensor, y: Tensor, strength: float) -> Regression:
    model = LogisticRegression(C=strength, tol=1e-10, max_iter=20_000).fit(x.numpy(), y.numpy())
    weights, bias = model.coef_, model.intercept_
    return Regression(torch.from_numpy(weights.T.copy()), torch.from_numpy(bias))


def _value(found: Regression, x: Tensor, y: Tensor, strength: float) -> float:
    scores = found.scores(x)
    loss = torch.nn.functional.cross_entropy(scores, y, reduction="sum")
    return float(loss + found.weights.square().sum() / (2 * strength)) / len(y)


def test_the_papers_strengths() -> None:
    assert len(STRENGTHS) == 45
    np.testing.assert_allclose(STRENGTHS, np.logspace(-6, 5, 45))


@pytest.mark.parametrize(("n", "d"), [(300, 12), (60, 90)])
def test_optimum_is_that_of_scikit_learn(n: int, d: int) -> None:
    """More images than dimensions, and fewer."""
    x, y = _drawn(n, d)
    chosen = [1e-6, 1e-3, 0.1, 3.0]
    for strength, found in path(x, y, K, chosen, tolerance=1e-12):
        theirs = _sklearn(x, y, strength)
        assert _value(found, x, y, strength) == pytest.approx(
            _value(theirs, x, y, strength), abs=1e-9
        )
        torch.testing.assert_close(found.weights, theirs.weights, atol=1e-3, rtol=1e-3)


def test_default_tolerance_in_single_precision_is_near_enough() -> None:
    """Within 0.2 points of accuracy on other images, and 0.0001 nats, over the whole path."""
    (x, y), (other, truth) = (_drawn(5000, 12, t) for t in (torch.float32, torch.float64))
    train, test = slice(0, 2500), slice(2500, None)
    for strength, found in list(path(x[train], y[train], K))[4::6]:
        double = Regression(found.weights.double(), found.bias.double())
        theirs = _sklearn(other[train], y[train], strength)
        values = [_value(each, other[train], y[train], strength) for each in (double, theirs)]
        assert values[0] == pytest.approx(values[1], abs=1e-4)
        shares = [
            100 * (each.scores(other[test]).argmax(1) == truth[test]).double().mean()
            for each in (double, theirs)
        ]
        assert abs(shares[0] - shares[1]) <= 0.2


def test_multilabel_is_a_binary_regression_a_class_and_leaves_out_what_is_unknown() -> None:
    x, y = _drawn(200, 6)
    targets = torch.stack([(y == 0), (y < 2), (x[:, 0] > 5)], 1).long()
    targets[::7, 1] = -1
    ((_, found),) = path(x, targets, 3, [0.5], tolerance=1e-13)
    for k in range(3):
        known = targets[:, k] >= 0
        theirs = _sklearn(x[known], targets[known, k], 0.5)
        torch.testing.assert_close(found.weights[:, k : k + 1], theirs.weights, atol=1e-3, rtol=0)
        assert float(found.bias[k]) == pytest.approx(float(theirs.bias), abs=1e-2)


def test_one_strength_is_its_place_on_the_path() -> None:
    x, y = _drawn(100, 5)
    alone = fit(x, y, K, STRENGTHS[20])
    along = dict(path(x, y, K))[STRENGTHS[20]]
    torch.testing.assert_close(alone.weights, along.weights)


def test_separable_classes_and_constant_features_end() -> None:
    x = torch.zeros(40, 3)
    x[:20, 0] = 1.0
    y = (torch.arange(40) < 20).long()
    for _, found in path(x, y, 2):
        assert torch.isfinite(found.weights).all() and (found.weights[1:] == 0).all()
    assert (found.scores(x).argmax(1) == y).all()
