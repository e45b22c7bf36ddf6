"""kNN on frozen features: no training, no choice but k and the temperature."""

from torch import Tensor

from byol import metrics


def knn(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    labels: Tensor,
    classes: int,
    k: int = 20,
    temperature: float = 0.07,
) -> dict[str, float]:
    """top1 and top5 in percent of queries (N, D) by the vote of the bank (M, D)."""
    scores = metrics.knn_scores(bank, bank_labels, queries, classes, k, temperature)
    return {
        "top1": metrics.accuracy(scores, labels),
        "top5": metrics.accuracy(scores, labels, 5),
    }


def knn_pixels(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    labels: Tensor,
    classes: int,
    k: int = 20,
    temperature: float = 0.07,
) -> float:
    """top1 of raw pixels as features: the better of plain and mean-centred ones."""
    mean = bank.mean(0)
    plain = knn(bank, bank_labels, queries, labels, classes, k, temperature)
    centred = knn(bank - mean, bank_labels, queries - mean, labels, classes, k, temperature)
    return max(plain["top1"], centred["top1"])
