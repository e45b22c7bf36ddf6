"""Images with their boxes as a detector takes them: the longest edge resized, perhaps flipped.

Size and flip are functions of (seed, epoch, index), so neither workers nor a resumed run change
them. An image that cannot be read is replaced by another in training and left out in scoring.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from byol import rng
from byol.data.boxes import BoxSource
from byol.data.files import in_workers
from byol.data.loader import positions
from byol.data.pixels import DecodeError
from byol.data.reader import BadFiles, Decoder
from byol.errors import UserError
from byol.tasks.precision import Boxes
from byol.tasks.subject import Subject

SIZE_STREAM = 30  # of random numbers, for the longest edge and the flip


@dataclass(frozen=True)
class Resize:
    """The longest edge in pixels is drawn between the two; half of the images are flipped."""

    least: int
    most: int
    flips: bool = False


@dataclass(frozen=True)
class Scenes:
    """A batch. The true boxes carry `iscrowd` (N,): those neither trained on nor scored."""

    step: int
    images: list[Tensor]  # B of (C, h, w) float32 in [0, 1]
    boxes: list[Boxes]  # in pixels of these images
    scales: list[Tensor]  # B of (4,): what the boxes were multiplied by
    index: list[int]


def resized(image: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """(C, H, W) to the longest edge `side`, bilinear; also (4,) what boxes are multiplied by."""
    height, width = image.shape[1:]
    longest = max(height, width)
    new = [max(1, round(length * side / longest)) for length in (height, width)]
    scale = torch.tensor([new[1] / width, new[0] / height]).repeat(2)
    if new == [height, width]:
        return image, scale
    return F.interpolate(image[None], new, mode="bilinear", antialias=True)[0], scale


def flipped(image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Image (C, H, W) and boxes (N, 4), left and right exchanged."""
    left, top, right, bottom = boxes.unbind(1)
    width = image.shape[2]
    return image.flip(2), torch.stack((width - right, top, width - left, bottom), 1)


class _Scenes(Dataset[Any]):
    """Batches by their positions [(epoch, index), ...]; an error comes back as a value."""

    def __init__(self, decoder: Decoder, resize: Resize, training: bool) -> None:
        self._decoder, self._resize, self._training = decoder, resize, training

    def __getitems__(self, wanted: list[tuple[int, int]]) -> Any:
        items: list[Any] = []
        bad: dict[int, str] = {}
        try:
            for epoch, place in wanted:
                try:
                    if self._training:
                        image, index, failed = self._decoder.read_or_replace(place)
                        bad |= failed
                    else:
                        image, index = self._decoder.read(place)
                except (DecodeError, OSError) as error:
                    bad[place] = f"{self._decoder.source.locate(place)}: {error}"
                    continue
                items.append((*self._scene(image[0], epoch, index), index))
        except UserError as error:
            return error
        return items, bad

    def _scene(self, image: Tensor, epoch: int, index: int) -> tuple[Tensor, Boxes, Tensor]:
        source = self._decoder.source
        assert isinstance(source, BoxSource)
        true, least, most = source.boxes[index], self._resize.least, self._resize.most
        key = (np.array([epoch]), np.array([index]))
        u = rng.uniforms(self._decoder.seed, SIZE_STREAM, *key, 2)[0]
        image, scale = resized(image, least + int(u[0] * (most - least + 1)))
        corners = torch.from_numpy(true.corners) * scale  # (N, 4)
        if self._resize.flips and u[1] < 0.5:
            image, corners = flipped(image, corners)
        labels, crowd = torch.from_numpy(true.classes), torch.from_numpy(true.ignored)
        return image, {"boxes": corners, "labels": labels, "iscrowd": crowd}, scale


def training_scenes(
    source: BoxSource, subject: Subject, resize: Resize, batch_size: int, seed: int,
    start: int, total: int,
) -> Iterator[Scenes]:  # fmt: skip
    """The batches of steps `start` to `total` - 1. Difficult boxes and crowds are left out.

    Raises UserError where more than a tenth of the images cannot be read.
    """
    steps = (positions(seed, len(source), batch_size, step) for step in range(start, total))
    places = (list(zip(*(a.tolist() for a in step), strict=True)) for step in steps)
    scenes = _serve(source, subject, resize, seed, places, True, None)
    for step, batch in zip(range(start, total), scenes, strict=False):
        kept = [{k: v[b["iscrowd"] == 0] for k, v in b.items()} for b in batch.boxes]
        yield Scenes(step, batch.images, kept, batch.scales, batch.index)


def all_scenes(
    source: BoxSource, subject: Subject, side: int, batch_size: int, bad: list[str] | None = None
) -> Iterator[Scenes]:
    """All images in order, longest edge `side`; one that cannot be read goes to `bad`."""
    chunks = [list(range(i, i + batch_size)) for i in range(0, len(source), batch_size)]
    places = [[(0, i) for i in chunk if i < len(source)] for chunk in chunks]
    yield from _serve(source, subject, Resize(side, side), 0, places, False, bad)


def _serve(
    source: BoxSource, subject: Subject, resize: Resize, seed: int, places: Any, training: bool,
    bad: list[str] | None,
) -> Iterator[Scenes]:  # fmt: skip
    _, channels, value_range = subject.geometry
    dataset = _Scenes(Decoder(source, channels, value_range, seed), resize, training)
    judge = BadFiles(source, 0.1)
    found = False
    for items, failed in in_workers(dataset, places, subject.workers):
        judge.add(len(items) + len(failed), failed)
        if bad is not None:
            bad += failed.values()
        if items:
            found = True
            yield _on_device(items, subject.device)
    if not found:
        raise UserError(f"no image of {source.name} could be read, such as {judge.bad[-1]}")


def _on_device(items: list[Any], device: torch.device) -> Scenes:
    images, boxes, scales, index = zip(*items, strict=True)
    moved = [image.to(device) for image in images]
    floats = [image.float() / 255 if image.dtype == torch.uint8 else image for image in moved]
    targets = [{name: value.to(device) for name, value in each.items()} for each in boxes]
    return Scenes(0, floats, targets, list(scales), list(index))
