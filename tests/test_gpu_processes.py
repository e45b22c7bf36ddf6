"""What several processes do on a GPU, as far as one GPU can tell: one of them over NCCL, and two
that share the GPU over gloo. The same on the CPU, which shows that the test itself is sound."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

import byol
from byol.engine.place import Place
from tests.several import several
from tests.test_fit import SMALL, pictures

_GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
pytestmark = pytest.mark.dist
OPTIONS: dict[str, dict[str, Any]] = {
    "torch's norms": {},
    "our norms": {"reference": True, "accumulation": 2, "shard_optimizer": True},
    "bf16": {"compress_gradients": True},  # of a GPU's arithmetic too
}


class _Crowd(int):
    """One process that takes itself for several, so that no exchange is passed over."""

    def __gt__(self, other: object) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = int.__hash__


def _run(out: Path, device: str, options: dict[str, Any]) -> Any:
    """Losses, names of results, features and processes of a short run."""
    is_half = device == "cuda" and options.get("compress_gradients", False)
    asked = {
        **SMALL,
        "precision": "bf16" if is_half else "fp32",
        "batch_size": 24,
        "epochs": 1,
        "log_every": 1,
    }
    result = byol.pretrain(pictures(75), out=out, **{**asked, "device": device, **options})
    features, _ = byol.embed(out, pictures(30), device=device)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    machine = json.loads((out / "environment.json").read_text())
    losses = [line["loss"] for line in lines if "loss" in line]
    return losses, set(result), features, machine["processes"]


def _plain_and_crowd(out: Path, device: str) -> Any:
    torch.backends.cudnn.allow_tf32 = False
    plain = [_run(out / f"plain {kind}", device, options) for kind, options in OPTIONS.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("byol.engine.processes.place", lambda: Place(0, _Crowd(1)))
        crowd = [_run(out / f"crowd {kind}", device, options) for kind, options in OPTIONS.items()]
    return plain, crowd


def _shared(out: Path, device: str) -> Any:
    """Two processes on one GPU, which is not for users, as NCCL cannot."""
    torch.backends.cudnn.allow_tf32 = False
    dist.init_process_group("gloo")
    with pytest.MonkeyPatch.context() as patch:
        here = torch.device("cuda", 0) if device == "cuda" else torch.device("cpu")
        for module in ("byol.pretraining", "byol.tasks.subject"):
            patch.setattr(f"{module}.pick_device", lambda *_: here)
        found = [_run(out / f"shared {kind}", device, options) for kind, options in OPTIONS.items()]
    dist.destroy_process_group()
    return found


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=_GPU), "cpu"])
def test_runs_over_processes_are_the_plain_ones(tmp_path: Path, device: str) -> None:
    plain, crowd = several(1, _plain_and_crowd, tmp_path, device)[0]
    others = [(1, crowd), *((2, found) for found in several(2, _shared, tmp_path, device))]
    for world, found in others:
        for kind, one, other in zip(OPTIONS, plain, found, strict=True):
            rounding = 0.03 if kind == "bf16" else 1e-4  # of bf16, or of three steps in float32
            np.testing.assert_allclose(other[0], one[0], rtol=rounding, err_msg=kind)
            assert len(one[0]) == 3 and other[1] == one[1] and other[2].shape == one[2].shape
            if kind != "bf16":
                np.testing.assert_allclose(other[2], one[2], rtol=1e-2, atol=1e-3, err_msg=kind)
            assert one[3] == ["this process"] and len(other[3]) == world
            assert other[3][0].startswith("process ")
