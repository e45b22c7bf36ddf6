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
