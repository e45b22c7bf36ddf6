"""Numbers that say how good features are, from tensors alone."""

import torch
from torch import Tensor
from torch.nn import functional as F


def accuracy(scores: Tensor, labels: Tensor, k: int = 1) -> float:
    """Percentage of rows whose label is among the k highest of scores (N, classes)."""
    k = min(k, scores.shape[1])
    return 100 * (scores.topk(k, dim=1).indices == labels[:, None]).any(1).float().mean().item()


def knn_scores(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    classes: int,
    k: int = 20,
    temperature: float = 0.07,
    block: int = 1024,
) -> Tensor:
    """Weighted vote of the k nearest by cosine: (M, D), (M,), (N, D) to scores (N, classes).

    A neighbour votes exp(cosine / temperature) for its label (Wu et al., 2018, section 3.4).
    Queries are taken in blocks, so that no (N, M) matrix is held.
    """
    bank = F.normalize(bank, dim=1)
    k = min(k, len(bank))
    scores = []
    for rows in F.normalize(queries, dim=1).split(block):
        similarity, at = (rows @ bank.T).topk(k, dim=1)  # (block, k)
        votes = torch.zeros(len(rows), classes, device=rows.device, dtype=rows.dtype)
        weight = ((similarity - 1) / temperature).exp()  # the shift by 1 changes no ranking
        scores.append(votes.scatter_add_(1, bank_labels[at], weight))
    return torch.cat(scores)


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
