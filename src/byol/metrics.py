"""Numbers that say how good features are, from tensors alone."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

SUMMARY = {
    "top1": "top-1 accuracy in %",
    "top5": "top-5 accuracy in %",
    "mean_per_class": "mean over the classes of their top-1 accuracy in %",
}


def hits(scores: Tensor, labels: Tensor, k: int = 1) -> Tensor:
    """(N,) bool: is the label (N,) among the k highest of scores (N, classes)."""
    k = min(k, scores.shape[1])
    return (scores.topk(k, dim=1).indices == labels[:, None]).any(1)


def accuracy(scores: Tensor, labels: Tensor, k: int = 1) -> float:
    """Percentage of rows whose label is among the k highest of scores (N, classes)."""
    return 100 * hits(scores, labels, k).float().mean().item()


def summary(first: Tensor, fifth: Tensor, labels: Tensor) -> dict[str, float]:
    """SUMMARY's figures from hits among the first and the first five (N,), and labels (N,).

    A class without images does not count in the mean over classes.
    """
    first, fifth, labels = first.cpu(), fifth.cpu(), labels.cpu()
    count = labels.bincount()
    right = labels.bincount(first.to(torch.float64), len(count))
    per_class = right[count > 0] / count[count > 0]
    shares = (first.double().mean(), fifth.double().mean(), per_class.mean())
    return {name: 100 * share.item() for name, share in zip(SUMMARY, shares, strict=True)}


def average_precision_11(scores: Tensor, truth: Tensor) -> float:
    """11-point average precision in [0, 1] of scores (N,) for truth (N,): 1 is, 0 is not, -1 is
    left out.

    What `eleven_point_ap` finds, where all that is right is ranked. Not a number where nothing is.
    """
    known = truth >= 0
    right = truth[known] > 0
    positives = int(right.sum())
    return eleven_point_ap(scores[known], right, positives) / 100 if positives else float("nan")


def mean_average_precision_11(scores: Tensor, truth: Tensor) -> float:
    """Percentage: the mean of average_precision_11 over the columns of scores and truth (N, K)
    that hold anything."""
    values = [average_precision_11(s, t) for s, t in zip(scores.T, truth.T, strict=True)]
    found = [value for value in values if value == value]
    return 100 * sum(found) / len(found) if found else float("nan")


def knn_scores(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    classes: int,
    k: int = 20,
    temperature: float = 0.07,
    block: int = 1024,
) -> Tensor:
    """Weighted vote of the k nearest by cosine: (M, D), (M,), (N, D) to scores (N, classes)."""
    found = neighbours(bank, queries, min(k, len(bank)), block=block)
    return torch.cat([votes(s, bank_labels[at], classes, temperature) for s, at in found])


def votes(similarity: Tensor, labels: Tensor, classes: int, temperature: float) -> Tensor:
    """Cosines (N, k) and labels (N, k) of neighbours to scores (N, classes).

    A neighbour votes exp(cosine / temperature) for its label (Wu et al., 2018, section 3.4).
    """
    weight = ((similarity - 1) / temperature).exp()  # the shift by 1 changes no ranking
    scores = torch.zeros(len(labels), classes, device=labels.device, dtype=weight.dtype)
    return scores.scatter_add_(1, labels, weight)


def neighbours(
    bank: Tensor,
    queries: Tensor,
    k: int,
    leave_one_out: bool = False,
    block: int = 1024,
    bank_block: int = 65_536,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Cosines (b, k) and places in the bank (b, k) of the k nearest, for blocks of queries.

    Bank (M, D), queries (N, D), k <= M. Nearest first; no more than (block, bank_block) cosines
    are held. leave_one_out: the queries are the bank, and none is its own neighbour (k < M).
    """
    bank = F.normalize(bank, dim=1)
    for start in range(0, len(queries), block):
        rows = F.normalize(queries[start : start + block], dim=1)  # (b, D)
        best = rows.new_empty(len(rows), 0)
        at = torch.empty(len(rows), 0, dtype=torch.int64, device=rows.device)
        for first in range(0, len(bank), bank_block):
            similarity = rows @ bank[first : first + bank_block].T  # (b, m)
            width = similarity.shape[1]
            if leave_one_out:
                own = torch.arange(start, start + len(rows), device=rows.device) - first
                row = ((own >= 0) & (own < width)).nonzero()[:, 0]
                similarity[row, own[row]] = -torch.inf
            near, place = similarity.topk(min(k, width), dim=1)
            best, at = torch.cat((best, near), 1), torch.cat((at, place + first), 1)
            if best.shape[1] >= k:
                best, order = best.topk(k, dim=1)
                at = at.gather(1, order)
        yield best, at


def confusion(predicted: Tensor, truth: Tensor, classes: int) -> Tensor:
    """Counts (K, K) of pixels: row the true class, column the predicted one, both (...) int64.

    Pixels whose true class is `classes` or more (the 255 of "do not care") are left out.
    """
    counted = truth < classes
    place = truth[counted] * classes + predicted[counted]
    return torch.bincount(place, minlength=classes**2).reshape(classes, classes)


def intersection_over_union(confusion: Tensor) -> Tensor:
    """Percentage (K,) of each class from `confusion` (K, K): pixels rightly called it, out of those
    that are it or are called it (VOC2012 devkit). Not a number where there are none of either."""
    right = confusion.diagonal().double()
    return 100 * right / (confusion.sum(0) + confusion.sum(1) - right)


def depth_sums(predicted: Tensor, truth: Tensor) -> Tensor:
    """Sums (6,) float64 over the measured pixels (truth > 0), both (...) in metres, which add up
    over batches: pixels, those within 1.25, 1.25^2 and 1.25^3, squares, relative errors.

    A prediction counts as 1 mm at least, as no ratio has a sense below.
    """
    measured = truth > 0
    d, guess = truth[measured].double(), predicted[measured].double().clamp_min(1e-3)
    ratio = torch.maximum(d / guess, guess / d)
    sums = [(ratio < 1.25**n).sum() for n in (1, 2, 3)]
    sums += [(d - guess).square().sum(), ((d - guess).abs() / d).sum()]
    return torch.stack([measured.sum().double(), *(each.double() for each in sums)])


def depth_errors(sums: Tensor) -> dict[str, float]:
    """The five figures of paper table 4b from added `depth_sums`: pct1 to pct3 in percent, rms in
    metres, rel. The means are over all pixels of all images together (Eigen et al., 2014)."""
    pixels, first, second, third, squares, relative = sums.tolist()
    return {
        "pct1": 100 * first / pixels,
        "pct2": 100 * second / pixels,
        "pct3": 100 * third / pixels,
        "rms": (squares / pixels) ** 0.5,
        "rel": relative / pixels,
    }


def standard_deviation(z: Tensor) -> float:
    """Mean over dimensions of the deviation of normalised rows (N, P), times sqrt(P).

    1 at most (directions spread evenly), 0 when all rows point the same way.
    """
    return (F.normalize(z, dim=1).std(0, correction=0).mean() * z.shape[1] ** 0.5).item()


def effective_rank(z: Tensor) -> float:
    """RankMe (Garrido et al., 2023): exp of the entropy of the singular values of z (N, P).

    Not a number where z is not finite.
    """
    if not torch.isfinite(z).all():
        return float("nan")
    singular = torch.linalg.svdvals(z.double())
    share = singular / singular.sum().clamp_min(1e-300)
    return torch.special.entr(share).sum().exp().item()


def mean_cosine(z: Tensor) -> float:
    """Mean cosine between different rows of z (N, P)."""
    rows = F.normalize(z.double(), dim=1)
    n = len(rows)
    return ((rows.sum(0).square().sum() - rows.square().sum()) / (n * (n - 1))).item()


def eleven_point_ap(scores: Tensor, correct: Tensor, positives: int) -> float:
    """Average precision in percent as VOC2007 computes it: scores (N,), correct (N,) bool.

    The mean over the recalls 0, 0.1, ..., 1 of the highest precision at that recall or above it
    (Everingham et al., 2010, section 4.2). positives: how many there are to be found.
    """
    hits = correct[scores.argsort(descending=True, stable=True)].double().cumsum(0)  # (N,)
    precision = hits / torch.arange(1, len(hits) + 1, dtype=hits.dtype, device=hits.device)
    total = 0.0
    for tenths in range(11):
        reached = precision[10 * hits >= tenths * positives]  # in whole numbers: 0.3 is reached
        total += reached.max().item() if len(reached) else 0.0
    return 100 * total / 11
