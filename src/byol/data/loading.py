"""The loader that suits a source: in memory, or files decoded by worker processes."""

from collections.abc import Sequence
from typing import Any

import torch

from byol.data.files import FileLoader
from byol.data.loader import WHOLE, CropSpec, ResidentLoader, Share
from byol.data.reader import Decoder
from byol.data.resident import load_all
from byol.data.source import Source
from byol.data.statistics import measure
from byol.viewspec import ViewSpec

RESIDENT_BYTES = 4e9  # of decoded images are kept in memory at most


def open_loader(
    source: Source,
    views: Sequence[ViewSpec],
    *,
    size: int,
    channels: int,
    value_range: tuple[float, float],
    batch_size: int,
    seed: int,
    workers: int,
    device: torch.device,
    rule: str = "torchvision",
    antialias: bool = True,
    bad_share: float = 0.1,
    at_least: int | None = None,
    share: Share = WHOLE,
    local_world: int = 1,
) -> FileLoader | ResidentLoader:
    """Random crops of size x size pixels for each of `views` (one or two).

    Resident for same-size sets that fit in memory, workers for everything else. share: the part of
    each batch that this process reads; at_least: see decode; local_world: processes that share the
    machine's memory.
    """
    measured = measure(source)
    common: dict[str, Any] = {
        "size": size,
        "crops": tuple(_crop(view) for view in views),
        "batch_size": batch_size,
        "seed": seed,
        "rule": rule,
        "antialias": antialias,
        "share": share,
    }
    if measured.same_size and measured.bytes_decoded_total_estimate < RESIDENT_BYTES:
        decoder = Decoder(source, channels, value_range, seed, at_least=at_least)
        loaded = load_all(decoder, bad_share)
        if loaded is not None:
            images, labels, bad = loaded
            return ResidentLoader(images.to(device), labels.to(device), bad=bad, **common)
    return FileLoader(
        source,
        channels=channels,
        value_range=value_range,
        workers=workers,
        device=device,
        bad_share=bad_share,
        cache_bytes=int(RESIDENT_BYTES) // local_world,
        at_least=at_least,
        **common,
    )


def _crop(view: ViewSpec) -> CropSpec:
    return CropSpec(
        (view.crop_area_min, view.crop_area_max), (view.crop_ratio_min, view.crop_ratio_max)
    )
