"""Frozen features of whole sources: over several processes, under a bar, and saved on the way."""

import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from byol.data.source import Source
from byol.engine.processes import ALONE, Processes
from byol.errors import Agreed
from byol.tasks.features import BATCH, features, pixels, stream
from byol.tasks.parts import Part, Parts, joined
from byol.tasks.subject import Subject, key
from byol.tasks.training import watched

T = TypeVar("T")
SAVE_SECONDS = 120


def collect(
    encoder: nn.Module,
    source: Source,
    geometry: tuple[int, int, tuple[float, float]],
    workers: int,
    device: torch.device,
    processes: Processes = ALONE,
    share: float = 224 / 256,
    title: str = "",
    folder: Path | None = None,
) -> tuple[Tensor, Tensor, list[int]]:
    """Features (N, D) float32, labels (N,) and places of all readable images of a source.

    Each process extracts its own part, each image once; all of them get all. geometry: image size,
    channels and value range, as `stream` takes them; share: of the shorter side, see
    data.files.central_box. title: of a bar. What takes longer than SAVE_SECONDS is saved in
    `folder`, which must be this extraction's own, and found again.
    """
    own = processes.share(len(source))
    kept = Parts(folder and folder / f"{processes.rank}-of-{processes.world}")
    with processes.together():
        parts = list(kept.saved())
        start = int(parts[-1].places[-1]) + 1 if parts else own.start
        places: list[int] = []
        rest = range(start, own.stop)
        given = stream(source, *geometry, workers, BATCH, places, share, rest)
        total, done = -(-len(own) // BATCH), (start - own.start) // BATCH
        batches = watched(given, total, BATCH, title if processes.is_main else "", done)
        while (first := next(batches, None)) is not None:
            rows, labels = features(encoder, chain([first], _for(SAVE_SECONDS, batches)), device)
            parts.append(Part(rows, labels, torch.tensor(places, dtype=torch.int64)))
            if places[-1] + 1 < own.stop:  # time was up
                kept.save(parts[-1])
            places.clear()
        part = joined(parts, int(encoder.num_features), device)  # type: ignore[arg-type]
    at = processes.rows(part.places)
    if not len(at):
        raise Agreed(f"no image of {source.name} could be decoded")
    return processes.rows(part.rows), processes.rows(part.labels), at.tolist()


def frozen(
    subject: Subject,
    source: Source,
    places: list[int] | None = None,
    share: float = 224 / 256,
) -> tuple[Tensor, Tensor]:
    """Features (N, D) float32 and labels (N,) of all readable images of a source.

    Of several processes the main one calls this; the others, in tasks/serving.py, do their parts.
    `places` receives their indices; share: of the shorter side, see data.files.central_box.
    """
    if subject.processes.world > 1:
        weights = {name: value.cpu() for name, value in subject.encoder.state_dict().items()}
        subject.processes.from_main((weights, source, share))
    rows, labels, where = part(subject, source, share)
    if places is not None:
        places += where
    return rows, labels


def part(subject: Subject, source: Source, share: float) -> tuple[Tensor, Tensor, list[int]]:
    """`collect` for a subject; all its processes call this."""
    how = (subject.geometry, subject.workers, subject.device, subject.processes, share)
    work = subject.work and subject.work / key(subject, source, (subject.geometry, share))
    title = f"{subject.name}, features of {len(source):,} images"
    return collect(subject.encoder, source, *how, title, work)


def _for(seconds: float, items: Iterator[T]) -> Iterator[T]:
    """Those that come in time, and the one that is late."""
    began = time.monotonic()
    for item in items:
        yield item
        if time.monotonic() - began > seconds:
            return


def frozen_pixels(subject: Subject, source: Source) -> tuple[Tensor, Tensor]:
    """Raw pixels (N, C s s) as the subject's images show them, and labels (N,)."""
    labels: list[Tensor] = []

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for image, label in stream(source, *subject.geometry, subject.workers):
            labels.append(label)
            yield image, label

    rows = pixels(batches())
    return rows.to(subject.device), torch.cat(labels).to(subject.device)
