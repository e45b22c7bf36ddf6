"""Random views of labelled images, for every training with labels."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from byol import views as drawing
from byol.data.loader import Batch
from byol.data.loading import open_loader
from byol.data.source import Source
from byol.tasks.subject import Subject
from byol.viewspec import ViewSpec

PLAIN = ViewSpec(jitter=0, grey=0, blur=0)  # random crop and flip, nothing else


@dataclass(frozen=True)
class Labelled:
    """One step's images."""

    images: Tensor  # (B, C, S, S) in [0, 1], channels last
    labels: Tensor  # (B,) int64
    index: np.ndarray  # (B,) int64, place in the source
    epoch: np.ndarray  # (B,) int64, visit


def random_views(
    subject: Subject,
    source: Source,
    batch_size: int,
    seed: int = 0,
    views: Sequence[ViewSpec] = (PLAIN,),
) -> Callable[[int, int], Iterator[Labelled]]:
    """(start, stop) to the batches of these steps, a function of (seed, epoch, index) alone.

    Of two views an image shows one in even epochs and the other in odd ones.
    """
    size, channels, value_range = subject.geometry
    loader = open_loader(
        source,
        views,
        size=size,
        channels=channels,
        value_range=value_range,
        batch_size=batch_size,
        seed=seed,
        workers=subject.workers,
        device=subject.device,
    )

    def batches(start: int, stop: int) -> Iterator[Labelled]:
        for batch in loader.batches(start, stop):
            images = _one_view(batch, views, seed)
            yield Labelled(images, batch.labels, batch.index, batch.epoch)

    return batches


def _one_view(batch: Batch, views: Sequence[ViewSpec], seed: int) -> Tensor:
    """Crops (B, V, C, S, S) to one view (B, C, S, S) of each image."""
    device = batch.crops.device
    out = torch.empty_like(batch.crops[:, 0], dtype=torch.float32)
    turn = batch.epoch % len(views)
    for v, spec in enumerate(views):
        chosen = turn == v
        at = torch.from_numpy(chosen.nonzero()[0]).to(device)
        if len(at):
            draws = drawing.draw(spec, seed, batch.epoch[chosen], batch.index[chosen], v)
            out[at] = drawing.apply(batch.crops[at, v], draws)
    return out.contiguous(memory_format=torch.channels_last)
