"""The generalised objective: which terms, between whom, and where gradients go."""

import pytest
import torch
from torch import Tensor

from byol.losses import info_nce, regression_loss
from byol.objective import BYOL, Objective, objective_loss

DOUBLE = torch.float64


def _pairs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    p1, p2, t1, t2 = (torch.randn(6, 4, dtype=DOUBLE) for _ in range(4))
    return p1, p2, t1, t2


def _squared(a: Tensor, b: Tensor) -> Tensor:
    """|n(a) - n(b)|^2, mean over the batch, written out."""
    return (a / a.norm(dim=1, keepdim=True) - b / b.norm(dim=1, keepdim=True)).pow(2).sum(1).mean()


def test_the_default_is_byol() -> None:
    p1, p2, t1, t2 = _pairs()
    loss = objective_loss(BYOL, (p1, p2), (t1, t2))
    assert torch.equal(loss, (regression_loss(p1, t2) + regression_loss(p2, t1)).mean())
    torch.testing.assert_close(loss, _squared(p1, t2) + _squared(p2, t1))


def test_one_direction() -> None:
    p1, p2, t1, t2 = _pairs()
    loss = objective_loss(Objective(directions="one"), (p1, p2), (t1, t2))
    torch.testing.assert_close(loss, _squared(p1, t2))


def test_negatives_of_both_directions() -> None:
    p1, p2, t1, t2 = _pairs()
    loss = objective_loss(Objective(alpha=0.3, beta=0.5), (p1, p2), (t1, t2))
    expected = info_nce(p1, t2, t1, 0.3, 0.5) + info_nce(p2, t1, t2, 0.3, 0.5)
    torch.testing.assert_close(loss, expected.mean())


@pytest.mark.parametrize(("teacher", "name"), [(-0.5, "RAFT"), (0.5, "BYOL'")])
def test_the_two_terms_of_raft(teacher: float, name: str) -> None:
    """align |n(q1) - n(q2)|^2 -+ 1/2 sum over views of |n(q_v) - n(target_v)|^2."""
    p1, p2, t1, t2 = _pairs()
    objective = Objective(align=1.5, teacher=teacher, compare="same")
    loss = objective_loss(objective, (p1, p2), (t1, t2))
    own = _squared(p1, t1) + _squared(p2, t2)
    expected = 1.5 * _squared(p1, p2) + (own / 2 if name == "BYOL'" else -own / 2)
    torch.testing.assert_close(loss, expected)


def test_byol_prime_bounds_byol() -> None:
    """|a - c|^2 <= 2 |a - b|^2 + 2 |b - c|^2 in both directions, so BYOL <= 4 BYOL'."""
    for _ in range(20):
        p1, p2, t1, t2 = _pairs()
        prime = Objective(align=1.0, teacher=0.5, compare="same")
        bound = 4 * objective_loss(prime, (p1, p2), (t1, t2))
        assert objective_loss(BYOL, (p1, p2), (t1, t2)) <= bound


def test_alignment_sends_its_gradient_to_both_views() -> None:
    p1, p2, t1, t2 = _pairs()
    p1.requires_grad_()
    p2.requires_grad_()
    objective_loss(Objective(align=1.0, teacher=0.0), (p1, p2), (t1, t2)).backward()
    assert p1.grad is not None and p1.grad.abs().sum() > 0
    assert p2.grad is not None and p2.grad.abs().sum() > 0


@pytest.mark.parametrize("how", ["layer", "batch", "none"])
def test_other_normalisations(how: str) -> None:
    p1, p2, t1, t2 = _pairs()
    objective = Objective(loss_normalisation=how, align=1.0)
    expected = (
        regression_loss(p1, t2, how) + regression_loss(p2, t1, how) + regression_loss(p1, p2, how)
    )
    torch.testing.assert_close(objective_loss(objective, (p1, p2), (t1, t2)), expected.mean())
