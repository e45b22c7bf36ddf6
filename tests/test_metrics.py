"""The numbers that judge features, by hand."""

import math

import pytest
import torch
from sklearn.metrics import precision_recall_curve
from torch.nn import functional as F

from byol import metrics
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


def test_eleven_point_average_precision_by_hand() -> None:
    """Ranked yes, no, yes, (left out), no, yes: precision 1, 2/3 and 3/5 at recalls 1/3, 2/3 and
    1, so recalls 0 to 0.3 take 1, 0.4 to 0.6 take 2/3, and 0.7 to 1 take 3/5."""
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    truth = torch.tensor([1, 0, 1, -1, 0, 1])
    expected = (4 * 1 + 3 * 2 / 3 + 4 * 3 / 5) / 11
    assert metrics.average_precision_11(scores, truth) == pytest.approx(expected)
    assert math.isnan(metrics.average_precision_11(scores, torch.zeros(6)))
    two = torch.stack([truth, torch.zeros(6)], 1)
    found = metrics.mean_average_precision_11(torch.stack([scores, scores], 1), two)
    assert found == pytest.approx(100 * expected)


def test_eleven_point_average_precision_by_another_formula() -> None:
    """From scikit-learn's curve of precision and recall."""
    generator = torch.Generator().manual_seed(1)
    for n in (3, 20, 200):
        truth = (torch.rand(n, generator=generator) < 0.4).long()
        truth[0] = 1
        scores = torch.rand(n, generator=generator) + 0.3 * truth
        precision, recall, _ = precision_recall_curve(truth.numpy(), scores.numpy())
        best = [precision[recall >= level / 10 - 1e-9].max() for level in range(11)]
        # The curve begins with precision 1 at recall 0, where nothing is found yet.
        best[0] = precision[recall > 0].max()
        assert metrics.average_precision_11(scores, truth) == pytest.approx(sum(best) / 11)
