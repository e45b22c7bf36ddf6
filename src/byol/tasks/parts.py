"""Features of many images, saved in parts as they are extracted, so that a stop costs minutes."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from byol.engine.files import atomic_write


class Part(NamedTuple):
    rows: Tensor  # (n, D) float32
    labels: Tensor  # (n,) int64
    places: Tensor  # (n,) int64, rising, in the source


class Parts:
    """Those of one extraction in a folder, in order; None keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def saved(self) -> Iterator[Part]:
        """What is there, on the CPU, up to the first that cannot be read."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        for file in sorted(self._folder.glob("*.safetensors")) if self._folder else []:
            try:
                yield Part(**load_file(file))
            except (SafetensorError, OSError, TypeError):
                return

    def save(self, part: Part) -> None:
        """Beside those before it; a part of the same first image is replaced."""
        from safetensors.torch import save

        if self._folder:
            self._folder.mkdir(parents=True, exist_ok=True)
            tensors = {name: value.cpu().contiguous() for name, value in part._asdict().items()}
            name = f"{int(part.places[0]):012d}.safetensors"
            atomic_write(self._folder / name, save(tensors))


def joined(parts: list[Part], features: int, device: torch.device) -> Part:
    """One after another on the device; without any an empty one of so many features."""
    whole = [
        part._replace(**{n: t.to(device) for n, t in part._asdict().items()}) for part in parts
    ]
    if not whole:
        rows = torch.zeros(0, features, device=device)
        none = torch.zeros(0, dtype=torch.int64, device=device)
        return Part(rows, none, none)
    return Part(*(torch.cat(column) for column in zip(*whole, strict=True)))
