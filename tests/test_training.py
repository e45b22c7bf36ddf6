"""Where the work of a training with labels is kept."""

from pathlib import Path

import torch
from torch import nn

from byol.tasks.training import work_folder


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
