"""Where the work of a training with labels is kept."""

from pathlib import Path

import pytest
import torch
from torch import nn

from byol.tasks.training import Diverged, remembered, unless_diverged, work_folder


def test_work_belongs_to_one_encoder_and_what_is_said(tmp_path: Path) -> None:
    def place(seed: int, *said: object, name: str = "segment") -> Path | None:
        torch.manual_seed(seed)
        return work_folder(tmp_path, name, nn.Linear(2, 2), *said)

    same = place(0, {"lr": 0.1}, "data")
    assert same == place(0, {"lr": 0.1}, "data") and same and same.parent == tmp_path / "work"
    others = {
        place(1, {"lr": 0.1}, "data"),
        place(0, {"lr": 0.2}, "data"),
        place(0, {"lr": 0.1}, "others"),
        place(0, {"lr": 0.1}, "data", name="depth"),
    }
    assert len(others | {same}) == 5
    assert work_folder(None, "segment", nn.Linear(2, 2)) is None


def test_a_baseline_that_diverges_is_left_out() -> None:
    def make() -> int:
        raise Diverged("supervised: the loss is nan at step 9")

    said: list[str] = []
    assert unless_diverged(make, True, said.append) is None and "step 9" in said[0]
    with pytest.raises(Diverged):
        unless_diverged(make, False, said.append)
    assert unless_diverged(lambda: 5, False, said.append) == 5 and len(said) == 1


def test_what_was_measured_is_remembered(tmp_path: Path) -> None:
    memory = tmp_path / "work" / "one.json"
    assert remembered(memory, lambda: {"top1": 5.5}) == {"top1": 5.5}
    assert remembered(memory, lambda: {"top1": 7.0}) == {"top1": 5.5}
    assert remembered(None, lambda: {"top1": 7.0}) == {"top1": 7.0}
