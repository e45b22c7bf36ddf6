"""Images of a source as tensors for an encoder, and their frozen features."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from byol import rng
from byol.data.files import images
from byol.data.prepared import Prepared, prepare_labelled
from byol.data.source import Source, Subset, open_splits
from byol.engine.device import autocast
from byol.monitor import Held, extract
from byol.networks.norm import initialise_affine_
from byol.tasks.augment import PLAIN, random_views
from byol.tasks.subject import Subject, untrained
from byol.viewspec import ViewSpec

BATCH = 256  # images
PIXEL_SIDE = 32  # raw pixels of larger images are compared at this size


def hold(
    source: Source,
    size: int,
    channels: int,
    value_range: tuple[float, float],
    workers: int,
    at: list[int] | None = None,
) -> Held:
    """The images `at` (all of them by default) of a source, resized and centre-cropped to size."""
    crops, labels = [], []
    for batch, batch_labels, _ in images(source, size, channels, value_range, 256, workers, at):
        crops.append(batch)
        labels.append(batch_labels)
    return Held(torch.cat(crops), torch.cat(labels))


def stream(
    source: Source,
    size: int,
    channels: int,
    value_range: tuple[float, float],
    workers: int,
    batch_size: int = BATCH,
    places: list[int] | None = None,
    share: float = 224 / 256,
    at: Sequence[int] | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of float images (B, C, S, S) in [0, 1] and labels (B,), in the source's order.

    Images that cannot be decoded are left out; `places` receives the indices of the others. `at`
    chooses some, maybe none of which can be decoded; of a whole source some must be.
    """
    geometry = (size, channels, value_range)
    for batch, labels, where in images(source, *geometry, batch_size, workers, at, share=share):
        if places is not None:
            places += where.tolist()
        yield (batch.float() / 255 if batch.dtype == torch.uint8 else batch), labels


def features(
    encoder: nn.Module,
    batches: Iterator[tuple[Tensor, Tensor]],
    device: torch.device,
    precision: str = "fp32",
) -> tuple[Tensor, Tensor]:
    """Features (N, D) float32 on the device and labels (N,) of all batches; memory holds a batch
    of images at a time."""
    labels: list[Tensor] = []

    def each() -> Iterator[Tensor]:
        for image, label in batches:
            labels.append(label)
            yield image.to(device).contiguous(memory_format=torch.channels_last)

    with autocast(device, precision):
        rows = extract(encoder, [encoder], each())
    return rows, torch.cat(labels).to(device)


def pixels(batches: Iterator[tuple[Tensor, Tensor]]) -> Tensor:
    """Raw pixels as features (N, C s s), s = 32 at most."""
    rows = []
    for image, _ in batches:
        if image.shape[-1] > PIXEL_SIDE:
            image = F.interpolate(image, (PIXEL_SIDE, PIXEL_SIDE), mode="area")
        rows.append(image.flatten(1))
    return torch.cat(rows)


@torch.no_grad()
def calibrate(
    encoder: nn.Module, batches: Iterator[tuple[Tensor, Tensor]], count: int = 10
) -> None:
    """Give an untrained encoder's batch norms the statistics of the data, from `count` batches.

    Affine layers that stand in their place take their scale and offset from the first batch.
    Fresh norm buffers (0 and 1) would make the untrained baseline weaker than it is.
    """
    norms = [m for m in encoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # a plain average over the batches
    device = next((weight.device for weight in encoder.parameters()), torch.device("cpu"))
    encoder.train()
    for (image, _), number in zip(batches, range(count), strict=False):
        if number == 0:
            initialise_affine_(encoder, partial(encoder, image.to(device)))
        encoder(image.to(device))
    encoder.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def baseline(subject: Subject, source: Source, seed: int = 0) -> Subject:
    """The same network untrained, its batch norms calibrated on images drawn from `source`."""
    fresh = untrained(subject, seed)
    calibrate(fresh.encoder, stream(drawn(source, seed), *subject.geometry, subject.workers))
    return fresh


def drawn(source: Source, seed: int) -> Source:
    """The images that norms are calibrated on, in no order, as files are often sorted by class."""
    return Subset(source, rng.some(seed, len(source), 2560))


def augmented(
    subject: Subject, source: Source, seed: int = 0, views: Sequence[ViewSpec] = (PLAIN,)
) -> Callable[[int], Tensor]:
    """epoch to features (N, D) of one random view of each image (paper appendix C.1).

    The rows are in the source's order, whatever the epoch's own. One epoch is kept at a time.
    """
    n = len(source)
    batch_size = min(256, n)
    feed = random_views(subject, source, batch_size, seed, views)
    kept: dict[int, Tensor] = {}

    def crops(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        first, steps = epoch * n // batch_size, -(-n // batch_size)
        for batch in feed(first, first + steps + 1):
            here = batch.epoch == epoch
            if here.any():
                chosen = torch.from_numpy(here.nonzero()[0]).to(subject.device)
                yield batch.images[chosen], torch.from_numpy(batch.index[here])

    def features_of(epoch: int) -> Tensor:
        if epoch not in kept:
            rows, at = features(subject.encoder, crops(epoch), subject.device)
            kept.clear()
            kept[epoch] = torch.empty_like(rows).index_copy_(0, at, rows)
        return kept[epoch]

    return features_of


def open_labelled(
    data: Any,
    eval_data: Any,
    seed: int,
    say: Callable[[str], None] = lambda line: None,
    leave_one_out: bool = False,
) -> Prepared:
    """Bank and queries of labelled data; leave_one_out: both are all images where no test set is.

    Raises UserError where labels are missing or do not suffice.
    """
    prepared = prepare_labelled(open_splits(data, eval_data, None), seed, say, leave_one_out)
    say(
        f"bank: {len(prepared.bank):,} images; queries: {len(prepared.queries):,} images of "
        f"{prepared.classes} classes"
    )
    return prepared
