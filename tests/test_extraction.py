"""Features of whole sources: saved on the way, and found again."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from byol.data.arrays import ArraySource
from byol.tasks import extraction
from byol.tasks.extraction import collect
from byol.tasks.parts import Part, Parts


class Mean(nn.Module):
    """Channel means, which stop after so many batches; it counts the images it has seen."""

    num_features = 3

    def __init__(self, batches: int = 99) -> None:
        super().__init__()
        self.left, self.seen = batches, 0

    def forward(self, images: Tensor) -> Tensor:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        self.seen += len(images)
        return images.mean((2, 3))


def source(n: int) -> ArraySource:
    rng = np.random.default_rng(0)
    return ArraySource(rng.integers(0, 256, (n, 8, 8, 3), np.uint8), np.arange(n) % 7)


def features(encoder: nn.Module, n: int, folder: Path | None) -> tuple[Tensor, Tensor, list[int]]:
    cpu = torch.device("cpu")
    return collect(encoder, source(n), (8, 3, (0, 255)), 0, cpu, folder=folder)


def test_a_stopped_extraction_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 256: two are saved, the third was on its way."""
    monkeypatch.setattr(extraction, "SAVE_SECONDS", -1)
    whole = features(Mean(), 1000, None)
    with pytest.raises(KeyboardInterrupt):
        features(Mean(2), 1000, tmp_path)
    again = Mean()
    found = features(again, 1000, tmp_path)
    assert again.seen == 1000 - 512
    for one, other in zip(found[:2], whole[:2], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert found[2] == whole[2] == list(range(1000))


def test_quick_extractions_write_nothing(tmp_path: Path) -> None:
    features(Mean(), 600, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_damaged_part_and_those_after_it_are_extracted_anew(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    for first in (0, 5, 10):
        places = torch.arange(first, first + 5)
        parts.save(Part(torch.randn(5, 3), places % 7, places))
    damaged = sorted(tmp_path.iterdir())[1]
    damaged.write_bytes(damaged.read_bytes()[:40])
    assert [int(part.places[0]) for part in parts.saved()] == [0]
    rows, _, found = features(Mean(), 20, tmp_path)
    assert len(rows) == 20 and found == list(range(20))
