"""kNN on frozen features: no training, no choice but k and the temperature."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from byol import metrics
from byol.errors import UserError
from byol.protocols import Knn
from byol.tasks.features import frozen, open_labelled
from byol.tasks.subject import Subject


def evaluate(
    subject: Subject, data: Any, options: Knn, folder: Path | None, say: Callable[[str], None]
) -> dict[str, float]:
    """top1 and top5 in percent of `subject` on labelled images."""
    prepared = open_labelled(data, options.eval_data, options.seed, say)
    if not 1 <= options.k <= len(prepared.bank):
        raise UserError(
            f"k is {options.k}; it must be from 1 to the {len(prepared.bank)} images of the bank"
        )
    bank, bank_labels = frozen(subject, prepared.bank)
    queries, labels = frozen(subject, prepared.queries)
    neighbours = (options.k, options.temperature)
    result = knn(bank, bank_labels, queries, labels, prepared.classes, *neighbours)
    say(f"knn: top-1 {result['top1']:.2f} %, top-5 {result['top5']:.2f} %")
    return result


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
