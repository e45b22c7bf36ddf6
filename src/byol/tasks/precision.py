"""Average precision of detections: COCO's by pycocotools (through torchmetrics), and VOC2007's.

They differ in the overlap that counts, in how a curve is averaged (101 or 11 points), and in what a
box may match: COCO takes the best true box that is still free, VOC the best of all, so that a
second box on the same object is wrong. Box convention: right edge = left + width.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from byol.errors import UserError
from byol.metrics import eleven_point_ap

METRICS = {
    "ap50_voc": "mean AP at overlap 0.5 in %, 11 points as VOC2007",
    "ap50": "mean AP at overlap 0.5 in %, 101 points as COCO",
    "ap": "mean AP over the overlaps 0.5, 0.55, ..., 0.95 in %, as COCO",
}
Boxes = dict[str, Tensor]  # boxes (N, 4), labels (N,) from 0; found: scores, true: iscrowd (N,)
Table = dict[str, dict[str, float]]


def require() -> None:
    """Raises UserError where the packages that score are missing."""
    try:
        import pycocotools  # noqa: F401
        import torchmetrics  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"detection is scored by {error.name}, which is not installed: run pip install "
            "'byol[detection]'"
        ) from error


def average_precision(
    found: Sequence[Boxes], true: Sequence[Boxes], classes: Sequence[str]
) -> tuple[dict[str, float], Table]:
    """The METRICS of detections, one entry an image: the mean over classes, and class by class.

    A class with nothing to find has no row and does not count. Boxes with `iscrowd` are neither to
    be found nor wrong when found.
    """
    from torchmetrics.detection import MeanAveragePrecision

    coco = MeanAveragePrecision(extended_summary=True, backend="pycocotools")
    coco.update(list(found), list(true))
    summary: Any = coco.compute()
    precision = summary["precision"][..., 0, -1]  # (overlaps, recalls, classes)
    table: Table = {}
    for place, k in enumerate(summary["classes"].reshape(-1).tolist()):
        curve = precision[:, :, place]
        positives = sum(int(((t["labels"] == k) & (t["iscrowd"] == 0)).sum()) for t in true)
        if positives:
            table[classes[k]] = {
                "ap50_voc": voc_ap(found, true, k),
                "ap50": 100 * curve[0].mean().item(),
                "ap": 100 * curve.mean().item(),
                "boxes": positives,
            }
    means = {m: sum(row[m] for row in table.values()) / max(len(table), 1) for m in METRICS}
    return means, table


def voc_ap(found: Sequence[Boxes], true: Sequence[Boxes], k: int) -> float:
    """VOC2007's AP of class k in percent, at overlap 0.5 (development kit, VOCevaldet)."""
    from torchvision.ops import box_iou

    scores: list[Tensor] = []
    correct: list[Tensor] = []
    positives = 0
    for one, truth in zip(found, true, strict=True):
        mine, real = one["labels"] == k, truth["labels"] == k
        crowd = truth["iscrowd"][real].bool()  # (T,)
        positives += int((~crowd).sum())
        order = one["scores"][mine].argsort(descending=True, stable=True)
        overlap = box_iou(one["boxes"][mine][order], truth["boxes"][real])  # (F, T)
        right, counts = _matched(overlap, crowd)
        scores.append(one["scores"][mine][order][counts])
        correct.append(right[counts])
    return eleven_point_ap(torch.cat(scores), torch.cat(correct), positives)


def _matched(overlap: Tensor, crowd: Tensor) -> tuple[Tensor, Tensor]:
    """Of F boxes in falling order of their scores, overlap (F, T): right or not, counted or not.

    Within an image the order of scores is all that matters, so images are matched one by one.
    """
    right = torch.zeros(len(overlap), dtype=torch.bool)
    counts = torch.ones(len(overlap), dtype=torch.bool)
    if overlap.shape[1] == 0:
        return right, counts
    best, at = overlap.max(1)
    taken: set[int] = set()
    for i, (value, place) in enumerate(zip(best.tolist(), at.tolist(), strict=True)):
        if value >= 0.5 and crowd[place]:
            counts[i] = False
        elif value >= 0.5 and place not in taken:
            right[i] = True
            taken.add(place)
    return right, counts
