"""Semantic segmentation with a fully convolutional head (paper appendix D.4; network and crops of
He et al., "Momentum contrast", 2020)."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from byol import metrics
from byol.data.dense import Cut, DenseBatch, PairReader
from byol.data.pairs import IGNORED, hold_out
from byol.data.pixels import DecodeError
from byol.errors import UserError
from byol.networks.dense import DenseNetwork, fcn_head
from byol.protocols import Segment
from byol.tasks.dense import (
    Dense,
    Say,
    as_picture,
    draw_picture,
    fitted,
    open_dense,
    outputs,
    shown,
    starts,
)
from byol.tasks.subject import Subject
from byol.tasks.training import unless_diverged, work_folder

SMALLEST = 33  # pixels of a crop, so that maps of stride 16 are larger than one


def evaluate(
    subject: Subject, data: Any, options: Segment, folder: Path | None, say: Say
) -> dict[str, Any]:
    """Mean IoU, accuracy of pixels and IoU of each class, in percent, of `subject` and of the same
    network from scratch, on the central crops of the pairs to measure on."""
    _check(options)
    train, test, largest, skipped = open_dense(
        subject, data, "classes", highest_class, options, say
    )
    names = train.pairs.classes or tuple(f"class {i}" for i in range(largest + 1))
    size = (options.crop, options.crop)
    said = (asdict(options), train.pairs.name, len(train.pairs), dict(subject.description))
    dense = Dense(
        subject, options, train, test,
        Cut(size, IGNORED, scales=(0.5, 2.0), flips=True), Cut(size, IGNORED),
        partial(fcn_head, classes=len(names)), pixel_loss, _unchanged,
        work_folder(folder, "segment", subject.encoder, *said),
    )  # fmt: skip
    rows: dict[str, dict[str, float]] = {}
    classes: dict[str, dict[str, float | None]] = {name: {} for name in names}
    networks: dict[str, DenseNetwork] = {}
    for row, start, frozen in starts(dense):
        lr = _choose_rate(dense, row, start, frozen, len(names), say)
        make = partial(fitted, dense, row, start, frozen, lr, train)
        network = unless_diverged(make, start is not subject, say)
        if network is None:
            continue
        networks[row] = network
        counts = count(dense, network, test, len(names))
        rows[row] = {**summary(counts), "lr": lr}
        for name, share in zip(names, metrics.intersection_over_union(counts), strict=True):
            classes[name][row] = None if share.isnan() else share.item()
        say(f"segment, {row}: mean IoU {rows[row]['miou']:.1f} %")
    if folder:
        _draw(dense, networks, names, folder / "segment.png")
    titles = {"miou": "mean IoU in %", "pixel_accuracy": "pixels right in %", "lr": "learning rate"}
    pairs = {"train": len(train.pairs), "test": len(test.pairs)}
    return {"rows": rows, "metrics": titles, "classes": classes, "pairs": pairs, "skipped": skipped}


def _check(options: Segment) -> None:
    if options.crop < SMALLEST:
        raise UserError(f"crop is {options.crop}; it must be {SMALLEST} pixels or more")
    if not options.lr or min(options.lr) <= 0:
        raise UserError(f"lr is {options.lr}; give one or more positive numbers")


def highest_class(mask: np.ndarray) -> int:
    """The largest class index in a mask (H, W). DecodeError where no pixel has a class."""
    labelled = mask[mask != IGNORED]
    if not labelled.size:
        raise DecodeError(f"its mask is empty: every pixel is {IGNORED}, which is no class")
    return int(labelled.max())


def pixel_loss(scores: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy of scores (B, K, H, W) and masks (B, H, W), mean over the pixels that have a
    class; 0 where there are none."""
    total = F.cross_entropy(scores, masks, ignore_index=IGNORED, reduction="sum")
    return total / (masks != IGNORED).sum().clamp_min(1)


def count(dense: Dense, network: DenseNetwork, reader: PairReader, classes: int) -> Tensor:
    """The confusion matrix (K, K) of a network on the pairs of a reader."""
    found = torch.zeros(classes, classes, dtype=torch.int64, device=dense.subject.device)
    for batch, scores in outputs(dense, network, reader):
        found += metrics.confusion(scores.argmax(1), batch.maps, classes)
    if not found.any():
        raise UserError("the crops to measure on hold no pixel with a class: enlarge crop")
    return found


def summary(confusion: Tensor) -> dict[str, float]:
    """Mean IoU over the classes that occur, and the share of pixels that are right, in percent."""
    right = 100 * confusion.diagonal().sum().double() / confusion.sum()
    shares = metrics.intersection_over_union(confusion)
    return {"miou": shares.nanmean().item(), "pixel_accuracy": right.item()}


def _choose_rate(
    dense: Dense, row: str, start: Subject, frozen: bool, classes: int, say: Say
) -> float:
    """The only rate, or the one of the best mean IoU on a held-out fifth of the training pairs."""
    rates = dense.options.lr
    assert isinstance(rates, tuple)
    if len(rates) == 1:
        return rates[0]
    kept, held = map(dense.train.of, hold_out(dense.train.pairs, dense.options.seed))
    scores = {}
    for lr in rates:
        try:
            network = fitted(dense, row, start, frozen, lr, kept)
            scores[lr] = summary(count(dense, network, held, classes))["miou"]
        except UserError as error:  # a rate that diverges
            say(str(error))
            scores[lr] = -1.0
    best = max(scores, key=scores.__getitem__)
    say(f"{row}: learning rate {best:g}, mean IoU {scores[best]:.1f} % on the held-out fifth")
    return best


def _unchanged(batch: DenseBatch) -> Tensor:
    return batch.images


def _draw(
    dense: Dense, networks: dict[str, DenseNetwork], names: tuple[str, ...], path: Path
) -> None:
    """Image, truth and each row's prediction, side by side; what has no class is black."""
    import matplotlib

    tables = [matplotlib.colormaps[f"tab20{letter}"](np.arange(20)) for letter in ("", "b", "c")]
    colours = np.tile(np.concatenate(tables)[:, :3], (5, 1))[:256]  # they repeat after 60 classes
    colours[IGNORED] = 0
    columns: dict[str, list[np.ndarray]] = {}
    for row, network in networks.items():
        columns["image"], columns["truth"], columns[row] = [], [], []
        for batch, scores in outputs(dense, network, shown(dense)):
            columns["image"] += [as_picture(image) for image in batch.images]
            columns["truth"] += [colours[mask] for mask in batch.maps.cpu().numpy()]
            columns[row] += [colours[mask] for mask in scores.argmax(1).cpu().numpy()]
    draw_picture(columns, path, dict(zip(names[:24], colours, strict=False)))
