"""Batches of pairs of an image and a map, both cut by the same draws.

What is cut is a function of (seed, epoch, index), so neither workers nor a resumed run change it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from byol import rng
from byol.data.decode import decode
from byol.data.files import in_workers
from byol.data.loader import positions
from byol.data.pairs import Pairs
from byol.data.pixels import DecodeError, to_crop_pixels
from byol.errors import UserError

CUT_STREAM = 20  # of random numbers, for scale, place and flip
_BAD_SHARE = 0.1  # of pairs that may be unusable

Facts = Callable[[np.ndarray], int]  # map (H, W) to a number of it; DecodeError where it is no use


@dataclass(frozen=True)
class Cut:
    """How a pair is scaled, cropped and flipped. The crop is random where the draws are."""

    size: tuple[int, int]  # height and width of the crop; smaller images are filled up
    ignored: int  # value of the map outside the image
    side: int | None = None  # pixels that the shorter side is brought to first
    scales: tuple[float, float] = (1, 1)  # between which a factor is drawn
    flips: bool = False


CENTRAL = (0.5, 0.5, 0.5, 0.5)  # the draws of an evaluation: no flip, centred


@dataclass(frozen=True)
class DenseBatch:
    images: Tensor  # (B, C, h, w) float32 in [0, 1]
    maps: Tensor  # (B, h, w) int64 class indices, or float32 metres
    epoch: np.ndarray  # (B,) int64, visit
    index: np.ndarray  # (B,) int64, place in the pairs


def cut_pair(
    image: Tensor, map_: Tensor, cut: Cut, u: np.ndarray, fill: Tensor
) -> tuple[Tensor, Tensor]:
    """Image (C, H, W) and map (H, W) to (C, h, w) and (h, w).

    u (4,) in [0, 1): scale, top, left, flip. The image is scaled bilinearly, the map by nearest
    neighbour, so that classes and depths do not mix. fill (C,) is the image outside the image.
    """
    height, width = map_.shape
    factor = cut.scales[0] + (cut.scales[1] - cut.scales[0]) * float(u[0])
    factor *= cut.side / min(height, width) if cut.side else 1
    scaled = (max(1, round(height * factor)), max(1, round(width * factor)))
    if scaled != (height, width):
        image = F.interpolate(image[None], scaled, mode="bilinear", antialias=True)[0]
        rows, columns = (
            ((torch.arange(new) + 0.5) * old / new).long()
            for new, old in zip(scaled, (height, width), strict=True)
        )
        map_ = map_[rows[:, None], columns]
    pads = []  # left, right, top, bottom; negative ones crop
    for axis in (1, 0):
        surplus = scaled[axis] - cut.size[axis]
        before = int(u[1 + axis] * (abs(surplus) + 1)) * (-1 if surplus > 0 else 1)
        pads += [before, -surplus - before]
    layers = [F.pad(c, pads, value=f.item()) for c, f in zip(image, fill, strict=True)]
    image, map_ = torch.stack(layers), F.pad(map_, pads, value=cut.ignored)
    if cut.flips and u[3] < 0.5:
        image, map_ = image.flip(2), map_.flip(1)
    return image, map_


@dataclass(frozen=True)
class PairReader:
    """Pairs as tensors for an encoder of `channels` channels, value_range becoming 0 to 1."""

    pairs: Pairs
    channels: int
    value_range: tuple[float, float]
    fill: tuple[float, ...]  # (C,) in [0, 1], the colour outside the image: the encoder's mean

    def of(self, pairs: Pairs) -> "PairReader":
        """The same for other pairs."""
        return replace(self, pairs=pairs)

    def read(self, i: int) -> tuple[Tensor, Tensor]:
        """Image (C, H, W) uint8 or float32 and map (H, W). DecodeError or OSError."""
        encoded, map_ = self.pairs.read(i)
        image = to_crop_pixels(decode(encoded, self.channels), self.value_range)  # (H, W, C)
        if image.shape[:2] != map_.shape:
            sides = [f"{array.shape[1]} x {array.shape[0]}" for array in (image, map_)]
            raise DecodeError(f"the image has {sides[0]} pixels and its map {sides[1]}")
        image = image if image.flags.writeable else image.copy()
        map_ = map_ if map_.flags.writeable else map_.copy()
        return torch.from_numpy(image).permute(2, 0, 1).contiguous(), torch.from_numpy(map_)


class _Cuts(Dataset[Any]):
    """Batches by their positions [(epoch, index), ...]; an error comes back as a value."""

    def __init__(self, reader: PairReader, cut: Cut, seed: int | None) -> None:
        self._reader, self._cut, self._seed = reader, cut, seed

    def __getitems__(self, wanted: list[tuple[int, int]]) -> Any:
        epoch, index = np.array(wanted, np.int64).T
        u = np.array([CENTRAL] * len(index))
        if self._seed is not None:
            u = rng.uniforms(self._seed, CUT_STREAM, epoch, index, 4)  # (B, 4)
        images, maps = [], []
        for draws, i in zip(u, index.tolist(), strict=True):
            try:
                image, map_ = self._reader.read(i)
            except (DecodeError, OSError) as error:  # it was usable when the training began
                return UserError(f"{self._reader.pairs.locate(i)}: {error}")
            fill = torch.tensor(self._reader.fill)
            fill = (255 * fill).round() if image.dtype == torch.uint8 else fill
            image, map_ = cut_pair(image, map_, self._cut, draws, fill)
            images.append(image)
            maps.append(map_)
        return torch.stack(images), torch.stack(maps), epoch, index


class _Facts(Dataset[Any]):
    """What each pair of a list says of itself: a number, or the reason why it cannot be used."""

    def __init__(self, reader: PairReader, facts: Facts) -> None:
        self._reader, self._facts = reader, facts

    def __getitems__(self, indices: list[int]) -> list[int | str]:
        found: list[int | str] = []
        for i in indices:
            try:
                found.append(self._facts(self._reader.read(i)[1].numpy()))
            except (DecodeError, OSError) as error:
                found.append(f"{self._reader.pairs.locate(i)}: {error}")
        return found


def usable(reader: PairReader, facts: Facts, workers: int) -> tuple[Pairs, list[int], list[str]]:
    """The pairs that can be read and that `facts` accepts, its numbers, and why the others cannot.

    Every pair is read once. Raises UserError where more than a tenth (and two) are no use, or all.
    """
    n = len(reader.pairs)
    chunks = [list(range(i, min(i + 16, n))) for i in range(0, n, 16)]
    found: list[int | str] = []
    for part in in_workers(_Facts(reader, facts), chunks, workers):
        found += part
    bad = [fact for fact in found if isinstance(fact, str)]
    if len(bad) == n or len(bad) > max(2, _BAD_SHARE * n):
        raise UserError(
            f"{len(bad)} of {n} pairs of {reader.pairs.name} cannot be used, such as "
            f"{bad[0] if bad else 'none at all'}"
        )
    good = {i: fact for i, fact in enumerate(found) if isinstance(fact, int)}
    return reader.pairs.take(list(good)), list(good.values()), bad


def training_batches(
    reader: PairReader, cut: Cut, batch_size: int, seed: int, start: int, total: int,
    workers: int, device: torch.device,
) -> Iterator[DenseBatch]:  # fmt: skip
    """The batches of steps `start` to `total` - 1, a function of (seed, step)."""
    steps = (positions(seed, len(reader.pairs), batch_size, step) for step in range(start, total))
    places = (list(zip(*(a.tolist() for a in step), strict=True)) for step in steps)
    yield from _on_device(_Cuts(reader, cut, seed), places, workers, device)


def central_batches(
    reader: PairReader, cut: Cut, batch_size: int, workers: int, device: torch.device
) -> Iterator[DenseBatch]:
    """Central crops of all pairs, in order."""
    places = [(0, i) for i in range(len(reader.pairs))]
    chunks = [places[i : i + batch_size] for i in range(0, len(places), batch_size)]
    yield from _on_device(_Cuts(reader, cut, None), chunks, workers, device)


def _on_device(
    cuts: _Cuts, places: Any, workers: int, device: torch.device
) -> Iterator[DenseBatch]:
    pinned = device.type == "cuda"
    for images, maps, epoch, index in in_workers(cuts, places, workers, pinned):
        images, maps = images.to(device, non_blocking=True), maps.to(device, non_blocking=True)
        images = images.float() / 255 if images.dtype == torch.uint8 else images
        maps = maps.long() if maps.dtype == torch.uint8 else maps
        images = images.contiguous(memory_format=torch.channels_last)
        yield DenseBatch(images, maps, epoch, index)
