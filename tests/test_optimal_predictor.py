"""What the paper's section 3.2 says of an optimal predictor, on linear models in float64."""

import pytest
import torch
from torch import Tensor

from byol.networks.heads import ClosedForm, ridge_regression

TINY = 1e-14  # a ridge that is none


def _double(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.fixture
def model() -> tuple[Tensor, Tensor, Tensor]:
    """Images (50, 8), the encoder's matrix (8, 4), fixed targets (50, 3)."""
    x = _double(50, 8)
    return x, _double(8, 4).requires_grad_(), x @ _double(8, 3) + 0.3 * _double(50, 3)


def _loss(z: Tensor, q: Tensor, target: Tensor) -> Tensor:
    return (z @ q - target).square().sum() / len(z)


def _attached(z: Tensor, target: Tensor) -> Tensor:
    """Q*, with its gradient."""
    return torch.linalg.solve(z.T @ z, z.T @ target)


def test_the_predictor_may_be_held_fixed(model: tuple[Tensor, Tensor, Tensor]) -> None:
    """d/dA with Q* detached = d/dA with Q* attached = finite differences of min_Q L."""
    x, a, target = model
    z = x @ a
    (whole,) = torch.autograd.grad(_loss(z, _attached(z, target), target), a)
    z = x @ a
    fixed_loss = (ClosedForm(TINY)(z, target) - target).square().sum() / len(z)
    (fixed,) = torch.autograd.grad(fixed_loss, a)
    torch.testing.assert_close(fixed, whole, rtol=1e-8, atol=1e-10)

    def least(matrix: Tensor) -> float:
        return _loss(x @ matrix, _attached(x @ matrix, target), target).item()

    with torch.no_grad():
        for i, j in ((0, 0), (3, 1), (7, 3)):
            step = torch.zeros_like(a)
            step[i, j] = 1e-5
            difference = (least(a + step) - least(a - step)) / 2e-5
            assert difference == pytest.approx(fixed[i, j].item(), rel=1e-6, abs=1e-9)


def test_away_from_the_optimum_it_may_not(model: tuple[Tensor, Tensor, Tensor]) -> None:
    x, a, target = model

    def gradient(is_attached: bool) -> Tensor:
        z = x @ a
        q = _attached(z, target) + 0.1
        q = q * z.square().mean() if is_attached else (q * z.square().mean()).detach()
        (result,) = torch.autograd.grad(_loss(z, q, target), a)
        return result

    assert (gradient(True) - gradient(False)).norm() > 1e-2 * gradient(False).norm()


def test_the_least_loss_is_the_conditional_variance() -> None:
    """Jointly Gaussian z, t: trace of S_tt - S_tz S_zz^-1 S_zt, to sampling error."""
    mix = _double(5, 5)
    values = _double(400_000, 5) @ mix.T
    covariance = mix @ mix.T
    z, t = values[:, :2], values[:, 2:]
    residual = covariance[2:, 2:] - covariance[2:, :2] @ torch.linalg.solve(
        covariance[:2, :2], covariance[:2, 2:]
    )
    loss = _loss(z, ridge_regression(z, t, TINY), t)
    assert loss.item() == pytest.approx(residual.trace().item(), rel=0.01)


def test_more_features_never_cost_and_none_leave_the_whole_variance(
    model: tuple[Tensor, Tensor, Tensor],
) -> None:
    x, a, target = model
    constant = torch.ones(50, 1, dtype=torch.float64)
    z = torch.cat((constant, (x @ a).detach()), 1)  # (50, 5)
    losses = [
        _loss(z[:, :n], ridge_regression(z[:, :n], target, TINY), target).item()
        for n in range(1, 6)
    ]
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]
    total = target.var(0, correction=0).sum().item()
    assert losses[0] == pytest.approx(total, rel=1e-9)


def test_of_discrete_features_it_is_the_table_of_means() -> None:
    kinds = torch.arange(60) % 4
    z = torch.nn.functional.one_hot(kinds, 4).double()
    target = _double(60, 3)
    q = ridge_regression(z, target, TINY)
    means = torch.stack([target[kinds == kind].mean(0) for kind in range(4)])
    torch.testing.assert_close(q, means, rtol=1e-9, atol=1e-11)
    within = sum(target[kinds == kind].var(0, correction=0).sum() / 4 for kind in range(4))
    torch.testing.assert_close(_loss(z, q, target), within)
