"""What is evaluated: an encoder, what it is called in a table, and how it is fed."""

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn

from byol.data.source import Source
from byol.engine import device as devices
from byol.engine.processes import ALONE, Processes, pick_device
from byol.networks.encoder import BUILD_DEFAULTS, Encoder, build_encoder
from byol.networks.foreign import open_encoder
from byol.options import from_dict
from byol.viewspec import ViewSpec


@dataclass(frozen=True)
class Subject:
    """An encoder in evaluation mode on `device`: images (B, C, S, S) in [0, 1] to (B, D)."""

    name: str  # its row in a table: "trained", "untrained", ...
    encoder: Encoder
    description: Mapping[str, Any]  # what encoder.json says: model, in_chans, image_size, ...
    device: torch.device
    precision: str  # "bf16" or "fp32", for training on top of it
    workers: int = 0  # processes that read files
    views: tuple[ViewSpec, ViewSpec] | None = None  # of its pretraining, where they are known
    processes: Processes = ALONE  # those that share the extraction of features
    work: Path | None = None  # folder for features that take long to extract

    @property
    def geometry(self) -> tuple[int, int, tuple[float, float]]:
        """Image size in pixels, channels, and the pixel values that become 0 and 1."""
        low, high = self.description.get("value_range", (0, 255))
        return int(self.description["image_size"]), int(self.description["in_chans"]), (low, high)


def open_subject(
    run: str | Path,
    encoder: nn.Module | None = None,
    device: str = "auto",
    workers: int = 0,
    name: str = "trained",
    image_size: int | None = None,
    processes: Processes = ALONE,
    work: Path | None = None,
) -> Subject:
    """Any encoder that open_encoder opens, as a Subject. Raises UserError as that does."""
    chosen = pick_device(device, processes)
    network, description = open_encoder(run, encoder, image_size)
    network = network.to(chosen).to(memory_format=torch.channels_last)
    precision = devices.pick_precision(chosen, "auto")
    views = _views(run)
    return Subject(name, network, description, chosen, precision, workers, views, processes, work)


def _views(run: str | Path) -> tuple[ViewSpec, ViewSpec] | None:
    """What config.yaml in the run folder, or beside the encoder file, says of the views."""
    folder = Path(run) if Path(run).is_dir() else Path(run).parent
    if not (folder / "config.yaml").is_file():
        return None
    config = from_dict(yaml.safe_load((folder / "config.yaml").read_text()))
    return config.view1, config.view2


def untrained(subject: Subject, seed: int = 0, name: str = "untrained") -> Subject:
    """The same network, freshly initialised from `seed`; its normalisation of images is kept.

    A module of the user's own is reset layer by layer (each layer's `reset_parameters`).
    """
    given = subject.encoder
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if subject.description["model"] == "custom":
            module = copy.deepcopy(given.module)
            for layer in module.modules():
                if callable(reset := getattr(layer, "reset_parameters", None)):
                    reset()
        else:
            known = {k: v for k, v in subject.description.items() if k in BUILD_DEFAULTS}
            module = build_encoder(subject.description["model"], **known)
    size = None if isinstance(getattr(module, "num_features", None), int) else subject.geometry[0]
    fresh = Encoder(module, given.mean.tolist(), given.std.tolist(), size).eval()
    fresh = fresh.to(subject.device).to(memory_format=torch.channels_last)
    return replace(subject, name=name, encoder=fresh)


def key(subject: Subject, source: Source, settings: object) -> str:
    """A name for a piece of work: another encoder, other images or settings give another."""
    digest = hashlib.sha256(repr((source.name, len(source), settings)).encode())
    if source.labels is not None:
        digest.update(np.ascontiguousarray(source.labels).tobytes())
    for i in range(0, len(source), max(1, len(source) // 1000)):
        digest.update(source.locate(i).encode())
    for tensor in subject.encoder.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
