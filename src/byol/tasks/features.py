"""Images of a source as tensors for an encoder, and their frozen features."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from byol import ops, rng
from byol.data.files import FileLoader, images
from byol.data.loader import CropSpec
from byol.data.prepared import Prepared, prepare
from byol.data.source import Source, open_splits
from byol.engine.device import autocast
from byol.engine.processes import ALONE, Processes
from byol.errors import Agreed, UserError
from byol.monitor import Held, extract
from byol.networks.norm import initialise_affine_
from byol.tasks.subject import Subject

FLIP_STREAM = 6  # of random numbers, for the probe's training flips
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
    batch_size: int = 256,
    places: list[int] | None = None,
    at: Sequence[int] | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of float images (B, C, S, S) in [0, 1] and labels (B,), in the source's order.

    Images that cannot be decoded are left out; `places` receives the indices of the others. `at`
    chooses some, maybe none of which can be decoded; of a whole source some must be.
    """
    chosen = images(source, size, channels, value_range, batch_size, workers, at)
    for batch, labels, where in chosen:
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


def collect(
    encoder: nn.Module,
    source: Source,
    geometry: tuple[int, int, tuple[float, float]],
    workers: int,
    device: torch.device,
    processes: Processes = ALONE,
) -> tuple[Tensor, Tensor, list[int]]:
    """Features (N, D) float32, labels (N,) and places of all readable images of a source.

    Each process extracts its own part, each image once; all of them get all. geometry: image size,
    channels and value range, as `stream` takes them.
    """
    places: list[int] = []
    own = processes.share(len(source))
    with processes.together():
        batches = stream(source, *geometry, workers, places=places, at=own)
        first = next(batches, None)
        if first is not None:
            rows, labels = features(encoder, chain([first], batches), device)
        else:  # fewer images than processes, or none of these can be read
            rows = torch.zeros(0, int(encoder.num_features), device=device)  # type: ignore[arg-type]
            labels = torch.zeros(0, dtype=torch.int64, device=device)
    at = processes.rows(torch.tensor(places, dtype=torch.int64, device=device))
    if not len(at):
        raise Agreed(f"no image of {source.name} could be decoded")
    return processes.rows(rows), processes.rows(labels), at.tolist()


def frozen(subject: Subject, source: Source) -> tuple[Tensor, Tensor]:
    """Features (N, D) float32 and labels (N,) of all readable images of a source."""
    subject_of = (subject.geometry, subject.workers, subject.device, subject.processes)
    rows, labels, _ = collect(subject.encoder, source, *subject_of)
    return rows, labels


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
    encoder.train()
    for (image, _), number in zip(batches, range(count), strict=False):
        if number == 0:
            initialise_affine_(encoder, partial(encoder, image))
        encoder(image)
    encoder.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def augmented(subject: Subject, source: Source, seed: int = 0) -> Callable[[int], Tensor]:
    """epoch to features (N, D) of one random crop and flip of each image (paper appendix C.1).

    The rows are in the source's order, whatever the epoch's own. One epoch is kept at a time.
    """
    n = len(source)
    size, channels, value_range = subject.geometry
    loader = FileLoader(
        source,
        channels=channels,
        value_range=value_range,
        size=size,
        crops=(CropSpec(), CropSpec()),
        batch_size=min(256, n),
        seed=seed,
        workers=subject.workers,
        device=subject.device,
    )
    kept: dict[int, Tensor] = {}

    def crops(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        steps = -(-n // loader.batch_size)
        first = epoch * n // loader.batch_size
        for batch in loader.batches(first, first + steps + 1):
            at = torch.from_numpy(batch.index)[batch.epoch == epoch]
            flip = rng.uniforms(seed, FLIP_STREAM, batch.epoch, batch.index, 1)[:, 0] < 0.5
            image = batch.crops[:, 0].float() / 255
            image = ops.horizontal_flip(image, torch.from_numpy(flip).to(subject.device))
            if len(at):
                yield image[torch.from_numpy(batch.epoch == epoch)], at

    def features_of(epoch: int) -> Tensor:
        if epoch not in kept:
            rows, at = features(subject.encoder, crops(epoch), subject.device)
            kept.clear()
            kept[epoch] = torch.empty_like(rows).index_copy_(0, at, rows)
        return kept[epoch]

    return features_of


def open_labelled(
    data: Any, eval_data: Any, seed: int, say: Callable[[str], None] = lambda line: None
) -> Prepared:
    """Bank and queries of labelled data. Raises UserError where there are no labels."""
    prepared = prepare(open_splits(data, eval_data, None), seed)
    if not prepared.classes:
        raise UserError(
            f"{prepared.train.name} has no labels to evaluate on: give class sub-folders, labelled "
            "Parquet or tar shards, or arrays with labels"
        )
    say(
        f"bank: {len(prepared.bank):,} images; queries: {len(prepared.queries):,} images of "
        f"{prepared.classes} classes"
    )
    return prepared
