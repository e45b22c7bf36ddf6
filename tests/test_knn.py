"""kNN on frozen features, by hand."""

import pytest
import torch

from byol.data.embedded import digits
from byol.tasks.knn import knn, knn_pixels

BANK = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [-1.0, 0.0]])
BANK_LABELS = torch.tensor([0, 0, 1, 2])


def test_hand_numbers() -> None:
    queries = torch.tensor([[1.0, 0.1], [0.1, 1.0], [-1.0, -0.1], [1.0, 0.0]])
    labels = torch.tensor([0, 1, 2, 1])  # the last is wrong at first, and right among five
    found = knn(BANK, BANK_LABELS, queries, labels, classes=6, k=4)
    assert found == {"top1": 75.0, "top5": 100.0}


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
