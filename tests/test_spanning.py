"""Batch norm over several processes against the plain one on the concatenated batch."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from byol.engine.processes import start
from byol.networks.norm import DebiasedBatchNorm, GroupedBatchNorm, own_averages, span_
from tests.several import several

pytestmark = pytest.mark.dist
WORLD, IMAGES = 3, 4  # processes, images in each
KINDS = [
    (kind, images) for kind in (GroupedBatchNorm, DebiasedBatchNorm) for images in (None, 6, 2)
]


def batch(maps: bool) -> tuple[Tensor, Tensor]:
    """Inputs far from 0 and the gradient of an output, of all processes."""
    generator = torch.Generator().manual_seed(3)
    shape = (WORLD * IMAGES, 5, 3, 2) if maps else (WORLD * IMAGES, 5)
    x, g = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in "xg")
    return x * 2 + 30, g


def passed(norm: Any, x: Tensor, g: Tensor) -> dict[str, Tensor]:
    """Two training passes, then everything that came of the second."""
    layers = nn.Sequential(norm, nn.ReLU(inplace=True))
    layers(x * 0.5)
    x = x.clone().requires_grad_()
    y = layers(x)
    (y * g).sum().backward()
    assert x.grad is not None and norm.weight.grad is not None and norm.bias.grad is not None
    return {
        "output": y.detach(),
        "input gradient": x.grad,
        "weight gradient": norm.weight.grad,
        "bias gradient": norm.bias.grad,
        "mean": norm.running_mean,
        "variance": norm.running_var,
    }


def made(kind: Any, images: int | None) -> Any:
    norm = kind(5, images=images).double()
    norm.weight.data.copy_(torch.linspace(0.5, 2, 5))
    norm.bias.data.copy_(torch.linspace(-1, 1, 5))
    return norm


def _pieces() -> list[dict[str, Tensor]]:
    """Each kind of norm on this process's images; parameter gradients summed over all."""
    found = []
    with start(wants_gpu=False) as processes:
        mine = slice(processes.rank * IMAGES, (processes.rank + 1) * IMAGES)
        for maps in (True, False):
            x, g = (part[mine] for part in batch(maps))
            for kind, images in KINDS:
                holder = nn.Sequential(made(kind, images))
                span_(holder, IMAGES)
                result = passed(holder[0], x, g)
                for name in ("weight gradient", "bias gradient"):
                    dist.all_reduce(result[name])
                processes.mean_(own_averages(holder))
                found.append({name: value.detach() for name, value in result.items()})
    return found


def test_three_processes_are_one_batch() -> None:
    """Groups: the whole batch, 6 images (one and a half processes), 2 images (within each)."""
    pieces = several(WORLD, _pieces)
    at = 0
    for maps in (True, False):
        for kind, images in KINDS:
            whole = passed(made(kind, images), *batch(maps))
            for name, value in whole.items():
                parts = [piece[at][name] for piece in pieces]
                if name in ("output", "input gradient"):
                    parts = [torch.cat(parts)]
                for part in parts:
                    torch.testing.assert_close(part, value, rtol=1e-10, atol=1e-11)
            at += 1


def _half() -> Any:
    with start(wants_gpu=False):
        holder = nn.Sequential(nn.BatchNorm2d(5), nn.BatchNorm2d(5, affine=False))
        span_(holder, IMAGES)
        x, _ = batch(True)
        y = holder(x[:IMAGES].bfloat16())
        return y.dtype, y.detach(), holder[0].running_var


def test_half_precision_and_torchs_own_norms() -> None:
    """Both processes hold the same images here, so the plain norms say what must come out."""
    plain: Any = nn.Sequential(nn.BatchNorm2d(5), nn.BatchNorm2d(5, affine=False))
    x = batch(True)[0][:IMAGES].bfloat16()
    expected = plain(x)
    for dtype, y, var in several(2, _half):
        assert dtype == torch.bfloat16
        torch.testing.assert_close(y, expected.detach(), rtol=2e-2, atol=2e-2)
        n = 2 * IMAGES * 6  # unbiased variance is of twice the values
        unbiased = (plain[0].running_var - 0.9) * ((n / 2 - 1) / (n / 2)) * (n / (n - 1)) + 0.9
        torch.testing.assert_close(var, unbiased, rtol=1e-5, atol=1e-6)
