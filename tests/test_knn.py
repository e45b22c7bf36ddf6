"""kNN on frozen features, by hand."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, top_k_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from byol import metrics
from byol.data.embedded import digits
from byol.tasks.knn import knn, knn_pixels, sweep

BANK = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [-1.0, 0.0]])
BANK_LABELS = torch.tensor([0, 0, 1, 2])


def test_hand_numbers() -> None:
    queries = torch.tensor([[1.0, 0.1], [0.1, 1.0], [-1.0, -0.1], [1.0, 0.0]])
    labels = torch.tensor([0, 1, 2, 1])  # the last is wrong at first, and right among five
    found = knn(BANK, BANK_LABELS, queries, labels, classes=6, k=4)
    assert found == pytest.approx({"top1": 75, "top5": 100, "mean_per_class": (100 + 50 + 100) / 3})


def test_neighbours_far_away_outvote_a_near_one_only_when_it_is_warm() -> None:
    bank = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.8, -0.6]])
    bank_labels, query, label = (
        torch.tensor([0, 1, 1]),
        torch.tensor([[1.0, 0.0]]),
        torch.tensor([0]),
    )
    cold = knn(bank, bank_labels, query, label, 2, k=3, temperature=0.07)
    warm = knn(bank, bank_labels, query, label, 2, k=3, temperature=10)
    nearest = knn(bank, bank_labels, query, label, 2, k=1, temperature=10)
    assert (cold["top1"], warm["top1"], nearest["top1"]) == (100, 0, 100)


def test_pixels_are_taken_plain_or_centred_whichever_is_better() -> None:
    bank = torch.tensor([[10.0, 11.0], [10.0, 9.0], [11.0, 10.0], [9.0, 10.0]])
    labels = torch.tensor([0, 1, 2, 3])  # plain, the four point almost the same way
    queries = 10 + 0.2 * (bank - 10)
    assert knn(bank, labels, queries, labels, 4, k=1)["top1"] == 50
    assert knn_pixels(bank, labels, queries, labels, 4, k=1) == 100


def test_digits_from_pixels() -> None:
    images, names, _ = digits()
    pixels, labels = torch.from_numpy(images).flatten(1).float(), torch.from_numpy(names)
    top1 = knn_pixels(pixels[:1200], labels[:1200], pixels[1200:], labels[1200:], 10)
    assert top1 == pytest.approx(96.5, abs=1.5)


def _reference(k: int, temperature: float) -> KNeighborsClassifier:
    """scikit-learn's, whose distance is 1 - cosine."""

    def vote(distance: np.ndarray) -> np.ndarray:
        return np.exp(-distance / temperature)

    return KNeighborsClassifier(k, weights=vote, algorithm="brute", metric="cosine")


def test_a_sweep_is_scikit_learns_kneighborsclassifier() -> None:
    bank, labels = torch.randn(300, 8).double(), torch.arange(300) % 7
    queries, truth = torch.randn(90, 8).double() + 0.3, torch.arange(90) % 7
    found = sweep(bank, labels, queries, truth, 7, (1, 5, 300), (0.07, 1.0))
    assert [(row["k"], row["temperature"]) for row in found] == [
        (1, 0.07), (1, 1.0), (5, 0.07), (5, 1.0), (300, 0.07), (300, 1.0),
    ]  # fmt: skip
    for row in found:
        theirs = _reference(int(row["k"]), row["temperature"]).fit(bank, labels)
        guess, chance = theirs.predict(queries), theirs.predict_proba(queries)
        assert row["top1"] == pytest.approx(100 * accuracy_score(truth, guess))
        assert row["mean_per_class"] == pytest.approx(100 * balanced_accuracy_score(truth, guess))
        five = top_k_accuracy_score(truth, chance, k=5)
        if row["k"] > 5:  # with few neighbours most classes tie at no vote
            assert row["top5"] == pytest.approx(100 * five)


def test_leaving_one_out_is_scikit_learns_with_the_query_taken_out() -> None:
    bank, labels = torch.randn(60, 5).double(), torch.arange(60) % 3
    (row,) = sweep(bank, labels, bank, labels, 3, (4,), (0.5,), leave_one_out=True)
    right = 0
    for i in range(60):
        rest = np.arange(60) != i
        theirs = _reference(4, 0.5).fit(bank[rest], labels[rest])
        right += int(theirs.predict(bank[i : i + 1])[0]) == int(labels[i])
    assert row["top1"] == pytest.approx(100 * right / 60)


@pytest.mark.parametrize("leave_one_out", [False, True])
def test_blocks_of_queries_and_bank_change_no_neighbour(leave_one_out: bool) -> None:
    bank = torch.randn(50, 6)
    (whole,) = metrics.neighbours(bank, bank, 49, leave_one_out)
    parts = metrics.neighbours(bank, bank, 49, leave_one_out, block=7, bank_block=11)
    similarity, at = (torch.cat(part) for part in zip(*parts, strict=True))
    assert torch.equal(at, whole[1])
    torch.testing.assert_close(similarity, whole[0])
    itself = (at == torch.arange(50)[:, None]).any(1)
    assert not itself.any() if leave_one_out else itself.all()
