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


def test_intersection_over_union_by_hand() -> None:
    """Two rows of pixels: class 0 is right in 2 of its 3 pixels, and one of class 1 is called 0;
    class 2 is only predicted, class 3 is nowhere, and a pixel of 255 does not count."""
    truth = torch.tensor([[0, 0, 0, 1], [1, 1, 255, 1]])
    predicted = torch.tensor([[0, 0, 1, 0], [1, 2, 0, 1]])
    counts = metrics.confusion(predicted, truth, 4)
    assert counts.tolist() == [[2, 1, 0, 0], [1, 2, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    shares = metrics.intersection_over_union(counts).tolist()
    assert shares[:3] == [100 * 2 / 4, 100 * 2 / 5, 0] and shares[3] != shares[3]


def test_intersection_over_union_as_scikit_learn() -> None:
    from sklearn.metrics import confusion_matrix, jaccard_score

    truth, predicted = torch.randint(0, 5, (2, 6, 7)), torch.randint(0, 5, (2, 6, 7))
    counts = metrics.confusion(predicted, truth, 5)
    flat = truth.flatten().numpy(), predicted.flatten().numpy()
    assert (counts.numpy() == confusion_matrix(*flat)).all()
    expected = 100 * jaccard_score(*flat, average=None)
    assert metrics.intersection_over_union(counts).tolist() == pytest.approx(expected)


def test_depth_errors_by_hand() -> None:
    """Depths 1, 2, 4, 8 m guessed at 1.2 (within 1.25), 1.4 (ratio 1.43: within 1.5625), 7.6 (1.9:
    within 1.953) and 4 (2: outside); a pixel that was not measured does not count."""
    truth = torch.tensor([[1.0, 2.0, 4.0], [8.0, 0.0, 0.0]])
    guess = torch.tensor([[1.2, 1.4, 7.6], [4.0, 5.0, 1.0]])
    half = metrics.depth_sums(guess[0], truth[0]) + metrics.depth_sums(guess[1], truth[1])
    found = metrics.depth_errors(half)
    squares = 0.2**2 + 0.6**2 + 3.6**2 + 4**2
    expected = {"pct1": 25, "pct2": 50, "pct3": 75, "rms": (squares / 4) ** 0.5}
    expected["rel"] = (0.2 / 1 + 0.6 / 2 + 3.6 / 4 + 4 / 8) / 4
    assert found == pytest.approx(expected, rel=1e-6)


def test_a_depth_below_zero_is_a_large_error_not_an_infinite_one() -> None:
    found = metrics.depth_errors(metrics.depth_sums(torch.tensor([-3.0]), torch.tensor([2.0])))
    assert found == pytest.approx({"pct1": 0, "pct2": 0, "pct3": 0, "rms": 1.999, "rel": 0.9995})
