"""What learns, and what needs a GPU: `make test-slow`."""

from pathlib import Path
from typing import Any

import pytest
import torch

import byol
from byol.data.embedded import textures


@pytest.mark.slow
def test_the_demo_beats_raw_pixels_and_the_untrained_network(tmp_path: Path) -> None:
    """The claim of the README: 20 points above pixels, 10 above the untrained encoder."""
    data = {"train": textures(4000, seed=100), "test": textures(2000, seed=1234)}
    knn = byol.pretrain(data, out=tmp_path / "run", recipe="demo", mode="quiet")["knn"]
    assert knn["trained"] >= knn["raw_pixels"] + 20
    assert knn["trained"] >= knn["untrained"] + 10


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("compiled", [False, True])
def test_a_gpu_gives_the_losses_of_the_cpu(tmp_path: Path, compiled: bool) -> None:
    """In float32 the first steps agree to rounding, which grows about tenfold a step."""
    data = textures(256, seed=3)
    options: dict[str, Any] = {
        "recipe": "small-32",
        "epochs": 1,
        "batch_size": 64,
        "hidden_size": 64,
        "projection_size": 32,
        "precision": "fp32",
        "log_every": 1,
        "mode": "quiet",
        "final_linear": False,
    }
    losses = []
    for device, compile_ in (("cpu", False), ("cuda", compiled)):
        out = tmp_path / device
        byol.pretrain(data, out=out, device=device, compile=compile_, **options)
        lines = (out / "metrics.jsonl").read_text().splitlines()
        losses.append([float(x.split('"loss": ')[1].split(",")[0]) for x in lines if '"loss"' in x])
    assert losses[0][:3] == pytest.approx(losses[1][:3], abs=2e-3)
