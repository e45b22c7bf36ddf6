"""kNN on frozen features: no training, no choice but k and the temperature.

Not in the paper; the weighted vote of Wu et al. (2018) with k and temperature as published codes
set them (200 and 0.1 in lightly, 20 and 0.07 in solo-learn).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from byol import metrics
from byol.errors import UserError
from byol.protocols import Knn
from byol.tasks.extraction import frozen, frozen_pixels
from byol.tasks.features import baseline, open_labelled
from byol.tasks.subject import Subject

Row = dict[str, float]


def evaluate(
    subject: Subject, data: Any, options: Knn, folder: Path | None, say: Callable[[str], None]
) -> dict[str, Any]:
    """Rows of accuracies in percent for the first k and temperature, and a sweep of all of them.

    Without a test set every image queries all the others.
    """
    prepared = open_labelled(data, options.eval_data, options.seed, say, leave_one_out=True)
    alone = prepared.queries is prepared.bank
    _check(options, len(prepared.bank) - alone)

    def table(bank: tuple[Tensor, Tensor], queries: tuple[Tensor, Tensor]) -> list[Row]:
        given = (*bank, *queries, prepared.classes)
        return sweep(*given, options.k, options.temperature, alone)

    def of(each: Subject) -> list[Row]:
        bank = frozen(each, prepared.bank)
        return table(bank, bank if alone else frozen(each, prepared.queries))

    tables = {subject.name: of(subject)}
    if options.baselines:
        tables["untrained"] = of(baseline(subject, prepared.bank, options.seed))
        bank, labels = frozen_pixels(subject, prepared.bank)
        queries, truth = (bank, labels) if alone else frozen_pixels(subject, prepared.queries)
        plain = table((bank, labels), (queries, truth))
        mean = bank.mean(0)
        centred = table((bank - mean, labels), (queries - mean, truth))
        tables["raw_pixels"] = max(plain, centred, key=lambda found: found[0]["top1"])
    for row in tables[subject.name]:
        say(
            f"k {row['k']}, temperature {row['temperature']:g}: top-1 {row['top1']:.2f} %, "
            f"top-5 {row['top5']:.2f} %, mean per class {row['mean_per_class']:.2f} %"
        )
    rows = {name: {key: found[0][key] for key in metrics.SUMMARY} for name, found in tables.items()}
    say("   ".join(f"{name.replace('_', ' ')} {row['top1']:.2f} %" for name, row in rows.items()))
    return {"rows": rows, "metrics": metrics.SUMMARY, "leave_one_out": alone, "sweep": tables}


def _check(options: Knn, most: int) -> None:
    wrong = [k for k in options.k if not 1 <= k <= most]
    if wrong or not options.k:
        raise UserError(
            f"k is {wrong[0] if wrong else 'empty'}; it must be from 1 to the {most} images of the "
            "bank that can be neighbours"
        )
    if not options.temperature or min(options.temperature) <= 0:
        raise UserError(f"temperature is {options.temperature}; it must be above 0")


def sweep(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    labels: Tensor,
    classes: int,
    ks: Sequence[int],
    temperatures: Sequence[float],
    leave_one_out: bool = False,
) -> list[Row]:
    """k, temperature, top1, top5 and mean_per_class in percent for each pair, k by k.

    Bank (M, D), queries (N, D); neighbours are found once, for the largest k.
    """
    pairs = [(k, temperature) for k in ks for temperature in temperatures]
    found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in pairs]
    start = 0
    for similarity, at in metrics.neighbours(bank, queries, max(ks), leave_one_out):
        truth = labels[start : start + len(at)]
        start += len(at)
        for hits, (k, temperature) in zip(found, pairs, strict=True):
            scores = metrics.votes(similarity[:, :k], bank_labels[at[:, :k]], classes, temperature)
            hits.append((metrics.hits(scores, truth), metrics.hits(scores, truth, 5)))
    rows = []
    for (k, temperature), parts in zip(pairs, found, strict=True):
        first, fifth = (torch.cat(part) for part in zip(*parts, strict=True))
        rows.append({"k": k, "temperature": temperature} | metrics.summary(first, fifth, labels))
    return rows


def knn(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    labels: Tensor,
    classes: int,
    k: int = 20,
    temperature: float = 0.07,
) -> dict[str, float]:
    """top1, top5 and mean_per_class in percent of queries (N, D) by the vote of the bank (M, D)."""
    k = min(k, len(bank))
    (row,) = sweep(bank, bank_labels, queries, labels, classes, (k,), (temperature,))
    return {name: row[name] for name in metrics.SUMMARY}


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
