"""The numbers that judge features, by hand."""

import math

import pytest
import torch
from torch.nn import functional as F

from byol.metrics import accuracy, effective_rank, knn_scores, mean_cosine, standard_deviation


def test_accuracy_by_hand() -> None:
    scores = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3], [0.3, 0.2, 0.5], [0.6, 0.3, 0.1]])
    labels = torch.tensor([1, 2, 2, 2])
    assert [accuracy(scores, labels, k) for k in (1, 2, 3, 9)] == [50, 75, 100, 100]


def test_votes_by_hand() -> None:
    bank = torch.tensor([[2.0, 0.0], [3.0, 4.0], [0.0, 5.0], [-1.0, 0.0]])  # cosines 1, .6, 0, -1
    scores = knn_scores(bank, torch.tensor([2, 0, 0, 1]), torch.tensor([[7.0, 0.0]]), 3, 3, 0.5)
    expected = [[math.exp(-0.4 / 0.5) + math.exp(-1 / 0.5), 0, 1]]
    torch.testing.assert_close(scores, torch.tensor(expected))


def test_blocks_and_a_small_bank_change_nothing() -> None:
    bank, labels, queries = torch.randn(15, 6), torch.arange(15) % 3, torch.randn(11, 6)
    whole = knn_scores(bank, labels, queries, 3, k=15)
    torch.testing.assert_close(knn_scores(bank, labels, queries, 3, k=15, block=4), whole)
    torch.testing.assert_close(knn_scores(bank, labels, queries, 3, k=200), whole)
    torch.testing.assert_close(knn_scores(9 * bank, labels, queries / 3, 3, k=15), whole)


def test_standard_deviation() -> None:
    axes = torch.cat((torch.eye(4), -torch.eye(4)))
    assert standard_deviation(axes) == pytest.approx(1)
    assert standard_deviation(torch.ones(6, 4)) == 0
    assert standard_deviation(torch.tensor([[1.0, 0.0], [0.0, 1.0]])) == pytest.approx(0.5**0.5)
    assert standard_deviation(torch.randn(4000, 64)) == pytest.approx(1, abs=0.01)


def test_effective_rank() -> None:
    assert effective_rank(torch.eye(7)) == pytest.approx(7)
    assert effective_rank(torch.ones(9, 1) @ torch.randn(1, 5)) == pytest.approx(1, abs=1e-4)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_rank(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(math.exp(entropy))
    assert effective_rank(torch.zeros(4, 3)) == 1
    assert math.isnan(effective_rank(torch.tensor([[1.0, math.inf]])))


def test_mean_cosine_is_that_of_all_pairs() -> None:
    z = torch.randn(12, 5).double()
    rows = F.normalize(z, dim=1)
    pairs = [float(rows[i] @ rows[j]) for i in range(12) for j in range(12) if i != j]
    assert mean_cosine(z) == pytest.approx(sum(pairs) / len(pairs))
    assert mean_cosine(torch.ones(4, 3)) == pytest.approx(1)
