"""Which images form a step, where they are cropped, and the loader for sets that fit in memory.

The stream of images runs through one permutation after another without stopping at the end of an
epoch (official `byol/utils/dataset.py` repeats and shuffles likewise), so step k is a pure
function of (seed, k): resuming is starting at k.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from byol import ops, rng
from byol.pinned import to_device

CROP_STREAMS = (1, 2)  # streams of random numbers for the crops of view 1 and view 2


@dataclass(frozen=True)
class CropSpec:
    """The geometry of one view: area as a share of the image, aspect ratio = width / height."""

    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)


@dataclass(frozen=True)
class Batch:
    """What both loaders hand over."""

    crops: Tensor  # (B, V, C, S, S) of V views, uint8, or float32 in [0, 1] above 8 bits
    labels: Tensor  # (B,) int64, -1 where there is none
    index: np.ndarray  # (B,) int64, place in the source
    epoch: np.ndarray  # (B,) int64, visit


def positions(seed: int, n: int, batch_size: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Epochs (B,) and image indices (B,) of step `step`; a batch may be larger than the set."""
    place = np.arange(step * batch_size, (step + 1) * batch_size)  # (B,)
    epoch = place // n
    index = np.empty(batch_size, np.int64)
    for e in range(int(epoch[0]), int(epoch[-1]) + 1):
        here = epoch == e
        at = place[here] % n
        fits = n <= rng.DRAWN_WHOLE
        index[here] = _order(seed, e, n)[at] if fits else rng.shuffled(seed, e, n, at)
    return epoch, index


@dataclass(frozen=True)
class Share:
    """The part of a batch that is one process's: of each of `pieces` equal pieces, which are
    computed one after another, the `rank`-th of `world` equal slices. The default is all of it.

    A piece of the batch is then the same images, in the same order, over any number of processes.
    """

    rank: int = 0
    world: int = 1
    pieces: int = 1

    def of(self, array: np.ndarray) -> np.ndarray:
        """(B, ...) to this process's (B / world, ...), piece by piece."""
        slices = array.reshape(self.pieces, self.world, -1, *array.shape[1:])
        own: np.ndarray = slices[:, self.rank].reshape(-1, *array.shape[1:])
        return own


WHOLE = Share()
_remembered: dict[tuple[int, int, int], np.ndarray] = {}


def _order(seed: int, epoch: int, n: int) -> np.ndarray:
    """rng.permutation, with the last two remembered: a step asks for one or two of them."""
    key = (seed, epoch, n)
    if key not in _remembered:
        while len(_remembered) > 1:
            _remembered.pop(next(iter(_remembered)))
        _remembered[key] = rng.permutation(seed, epoch, n)
    return _remembered[key]


def _size(
    heights: np.ndarray, widths: np.ndarray, area: np.ndarray, log_aspect: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Height and width of crops of this share of the area and log of width / height."""
    pixels, ratio = heights * widths * area, np.exp(log_aspect)
    h, w = np.rint(np.sqrt(pixels / ratio)), np.rint(np.sqrt(pixels * ratio))
    return h.astype(np.int64), w.astype(np.int64)


def official_size(
    heights: np.ndarray, widths: np.ndarray, area: np.ndarray, log_aspect: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The same with each side cut to the image's, no second attempt (`byol/utils/dataset.py`)."""
    h, w = _size(heights, widths, area, log_aspect)
    return np.clip(h, 1, heights), np.clip(w, 1, widths)


def crop_boxes(
    heights: np.ndarray,
    widths: np.ndarray,
    seed: int,
    epoch: np.ndarray,
    index: np.ndarray,
    view: int,
    spec: CropSpec,
    rule: str = "torchvision",
) -> np.ndarray:
    """Random crop boxes (B, 4) int64: top, left, height, width.

    Area uniform in spec.area, log aspect ratio uniform. Rule "official" (`byol/utils/dataset.py`)
    makes one attempt and cuts each side to the image's; rule "torchvision" (RandomResizedCrop)
    makes up to ten attempts until both sides fit, then takes the largest centred crop within the
    ratio bounds.
    """
    attempts = 1 if rule == "official" else 10
    u = rng.uniforms(seed, CROP_STREAMS[view], epoch, index, 2 * attempts + 2)  # (B, draws)
    area = spec.area[0] + (spec.area[1] - spec.area[0]) * u[:, 2 : 2 + attempts]  # (B, attempts)
    low, high = math.log(spec.ratio[0]), math.log(spec.ratio[1])
    log_aspect = low + (high - low) * u[:, 2 + attempts :]
    found: np.ndarray
    if rule == "official":
        h, w = official_size(heights, widths, area[:, 0], log_aspect[:, 0])
        found = np.ones(len(index), bool)
    else:
        h, w = _size(heights[:, None], widths[:, None], area, log_aspect)  # (B, attempts) each
        fits = (h > 0) & (w > 0) & (h <= heights[:, None]) & (w <= widths[:, None])
        found = np.asarray(fits.any(1))
        first = fits.argmax(1)[:, None]
        h = np.take_along_axis(h, first, 1)[:, 0]
        w = np.take_along_axis(w, first, 1)[:, 0]
    top = np.floor(u[:, 0] * (heights - h + 1)).astype(np.int64)
    left = np.floor(u[:, 1] * (widths - w + 1)).astype(np.int64)
    if not found.all():  # the central crop of RandomResizedCrop
        central_w = np.minimum(widths, np.rint(heights * spec.ratio[1]).astype(np.int64))
        central_h = np.minimum(heights, np.rint(widths / spec.ratio[0]).astype(np.int64))
        h, w = np.where(found, h, central_h), np.where(found, w, central_w)
        top = np.where(found, top, (heights - h) // 2)
        left = np.where(found, left, (widths - w) // 2)
    return np.stack((top, left, h, w), axis=1)


class ResidentLoader:
    """Crops from a set of same-size images that lies in memory, on the training device.

    images (N, C, H, W) uint8 or float32, labels (N,) int64. Hands over the same Batch as the
    loader of files.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        size: int,
        crops: Sequence[CropSpec],
        batch_size: int,
        seed: int,
        rule: str = "torchvision",
        antialias: bool = True,
        bad: list[str] | None = None,
        share: Share = WHOLE,
    ) -> None:
        self.share = share
        self.images, self.labels = images, labels
        self.size, self.crops, self.rule, self.antialias = size, crops, rule, antialias
        self.batch_size, self.seed = batch_size, seed
        self.bad = bad or []  # files that could not be decoded when the set was read

    def batches(self, start_step: int, total_steps: int) -> Iterator[Batch]:
        """This process's share of the batches of steps start_step to total_steps - 1."""
        for step in range(start_step, total_steps):
            both = positions(self.seed, len(self.images), self.batch_size, step)
            epoch, index = (self.share.of(part) for part in both)
            at = to_device(index, self.images.device)
            crops = self._cut(at, epoch, index)  # (B, V, C, S, S)
            yield Batch(crops, self.labels[at], index, epoch)

    def _cut(self, at: Tensor, epoch: np.ndarray, index: np.ndarray) -> Tensor:
        height, width = (np.full(len(index), side) for side in self.images.shape[2:])
        boxes = [
            crop_boxes(height, width, self.seed, epoch, index, view, spec, self.rule)
            for view, spec in enumerate(self.crops)
        ]
        box = to_device(np.stack(boxes, 1), at.device)  # (B, V, 4)
        images = self.images.index_select(0, at)  # (B, C, H, W)
        return ops.crop_resize(images, box, self.size, self.antialias)
