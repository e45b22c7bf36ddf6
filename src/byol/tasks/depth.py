"""Depth from one image with up-projections and the reverse Huber loss (paper appendix D.6; network
and loss of Laina et al., 2016). The paper names no schedule; that of segmentation is taken."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from byol import metrics, ops, rng
from byol.data.dense import Cut, DenseBatch
from byol.data.pixels import DecodeError
from byol.errors import UserError
from byol.networks.dense import DenseNetwork, depth_head
from byol.protocols import Depth
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

COLOUR_STREAM = 21  # of random numbers


def evaluate(
    subject: Subject, data: Any, options: Depth, folder: Path | None, say: Say
) -> dict[str, Any]:
    """The five figures of depth of `subject` and of the same network from scratch."""
    if min(options.side, options.width, options.height) < 33 or options.lr <= 0:
        raise UserError("side, width and height must be 33 pixels or more, and lr positive")
    if options.depth_scale <= 0:
        raise UserError(f"depth_scale is {options.depth_scale}; it must be positive")
    train, test, _, skipped = open_dense(subject, data, "depth", _has_depth, options, say)
    cut = partial(Cut, (options.height, options.width), 0, options.side)
    said = (asdict(options), train.pairs.name, len(train.pairs), dict(subject.description))
    work = work_folder(folder, "depth", subject.encoder, *said)
    dense = Dense(
        subject, options, train, test, cut(flips=True), cut(), depth_head, _loss,
        partial(colours, options.seed), work,
    )  # fmt: skip
    lr = options.lr * options.batch_size / 256
    rows: dict[str, dict[str, float]] = {}
    networks: dict[str, DenseNetwork] = {}
    for row, start, frozen in starts(dense):
        make = partial(fitted, dense, row, start, frozen, lr, train)
        network = unless_diverged(make, start is not subject, say)
        if network is None:
            continue
        networks[row] = network
        rows[row] = errors(dense, network)
        say(f"depth, {row}: rms {rows[row]['rms']:.3f} m, rel {rows[row]['rel']:.3f}")
    if folder:
        _draw(dense, networks, folder / "depth.png")
    titles = {f"pct{n}": f"pixels within a factor of 1.25^{n} in %" for n in (1, 2, 3)}
    titles |= {"rms": "root of the mean squared error in m", "rel": "mean relative error"}
    pairs = {"train": len(train.pairs), "test": len(test.pairs)}
    return {"rows": rows, "metrics": titles, "pairs": pairs, "skipped": skipped}


def reverse_huber(error: Tensor, valid: Tensor) -> Tensor:
    """Mean over the `valid` entries of |x|, or (x^2 + c^2) / 2c above c = 0.2 max|x| of the batch,
    any equal shapes; 0 where nothing is valid. No gradient goes through c."""
    size = torch.where(valid, error, 0).abs()
    c = 0.2 * size.detach().max().clamp_min(1e-6)
    loss = torch.where(size <= c, size, (size.square() + c**2) / (2 * c))
    return loss.sum() / valid.sum().clamp_min(1)


def colours(seed: int, batch: DenseBatch) -> Tensor:
    """The images (B, C, H, W) of a training batch, each with draws of its own: brightness by 0.1255
    at most, and for 3 channels saturation times 0.5 to 1.5, hue by 0.2 turns at most, and grey in
    3 of 10."""
    u = rng.uniforms(seed, COLOUR_STREAM, batch.epoch, batch.index, 4)  # (B, 4)
    draws = torch.from_numpy(u).to(batch.images)
    images = ops.adjust_brightness(batch.images, 0.1255 * (2 * draws[:, 0] - 1)).clamp(0, 1)
    if images.shape[1] == 3:
        images = ops.adjust_saturation(images, 0.5 + draws[:, 1])
        images = ops.adjust_hue(images, 0.2 * (2 * draws[:, 2] - 1))
        is_grey = (draws[:, 3] < 0.3)[:, None, None, None]
        images = torch.where(is_grey, ops.grayscale(images), images)
    return images.clamp(0, 1)


def errors(dense: Dense, network: DenseNetwork) -> dict[str, float]:
    """The five figures of a network on the pairs to measure on."""
    sums = torch.zeros(6, dtype=torch.float64)
    for batch, output in outputs(dense, network, dense.test):
        sums += metrics.depth_sums(output[:, 0], batch.maps).cpu()
    if not sums[0]:
        raise UserError("the crops to measure on hold no depth: enlarge width and height")
    return metrics.depth_errors(sums)


def _loss(output: Tensor, maps: Tensor) -> Tensor:
    return reverse_huber(output[:, 0] - maps, maps > 0)


def _has_depth(map_: np.ndarray) -> int:
    if not np.isfinite(map_).all() or not (map_ > 0).any():
        raise DecodeError("its depth is empty: no pixel is above 0")
    return 0


def _draw(dense: Dense, networks: dict[str, DenseNetwork], path: Path) -> None:
    """Image, truth and each row's prediction, side by side; near is dark, no measurement black."""
    import matplotlib

    shades = matplotlib.colormaps["viridis"]
    columns: dict[str, list[np.ndarray]] = {}
    for row, network in networks.items():
        columns["image"], columns["truth"], columns[row] = [], [], []
        for batch, output in outputs(dense, network, shown(dense)):
            columns["image"] += [as_picture(image) for image in batch.images]
            maps, guesses = batch.maps.cpu().numpy(), output[:, 0].cpu().numpy()
            for truth, guess in zip(maps, guesses, strict=True):
                far = truth.max() or 1.0
                measured = shades(truth / far)[..., :3] * (truth > 0)[..., None]
                columns["truth"].append(measured)
                columns[row].append(shades(guess / far)[..., :3])
    draw_picture(columns, path, {})
