"""Weight gradients as products: those of torch's convolution, wherever they are taken."""

import copy

import pytest
import torch
from torch import Tensor, nn

from byol.networks.recompute import recompute_
from byol.networks.resnet import SameConv2d
from byol.networks.smallmaps import speed_small_maps_
from byol.networks.standardised import StandardisedConv2d


def _gradients(conv: nn.Module, x: Tensor, bf16: bool = False) -> tuple[Tensor, list[Tensor]]:
    """Output, and gradients of the input and the parameters, of a fixed function of the output."""
    x = x.detach().clone().requires_grad_()
    conv.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        out = conv(x)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    (out * weights).sum().backward()
    found = [x.grad, *(p.grad for p in conv.parameters())]
    return out, [g for g in found if g is not None]


def _is_product(out: Tensor) -> bool:
    """Whether _Convolution is among the last two steps of how `out` was made (then its bias)."""
    last = out.grad_fn
    before = [parent for parent, _ in last.next_functions if parent] if last else []
    return any("_Convolution" in type(node).__name__ for node in (last, *before))


@pytest.mark.parametrize("last", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("side", "conv", "small"),
    [
        ((1, 1), nn.Conv2d(5, 7, 3, padding=1), True),
        ((2, 2), nn.Conv2d(5, 7, 3, padding=1, bias=False), True),
        ((4, 3), nn.Conv2d(5, 7, 3, 2, 1), True),
        ((4, 4), nn.Conv2d(5, 7, 1, bias=False), True),
        ((7, 5), nn.Conv2d(5, 7, (3, 1), (3, 2), (0, 2)), True),
        ((5, 5), SameConv2d(5, 7, 3, 3, bias=False), True),
        ((2, 2), StandardisedConv2d(5, 7, 3, 1, 1), True),
        ((1, 2), nn.Conv2d(5, 7, 3, 2, 1), True),  # from here on some taps meet padding alone
        ((2, 1), nn.Conv2d(5, 7, 5, 1, 2), True),
        ((2, 2), nn.Conv2d(5, 7, 7, 2, 3), True),
        ((1, 3), nn.Conv2d(5, 7, 2, 1, 1), True),
        ((1, 1), nn.Conv2d(5, 7, 3, stride=9, padding=5), True),  # all of them
        ((3, 3), nn.Conv2d(5, 7, 3, padding=1), False),
        ((2, 2), nn.Conv2d(6, 6, 3, padding=1, groups=2), False),
        ((3, 3), nn.Conv2d(5, 7, 2, dilation=2), False),
        ((2, 2), nn.Conv2d(5, 7, 3, padding=1, padding_mode="reflect"), False),
        ((2, 2), nn.Conv2d(5, 7, 3, padding="same"), False),
    ],
)
def test_gradients_are_those_of_the_convolution(
    side: tuple[int, int], conv: nn.Conv2d, small: bool, last: torch.memory_format
) -> None:
    conv = copy.deepcopy(conv).double().to(memory_format=last)
    x = torch.randn(4, conv.in_channels, *side, dtype=torch.float64).to(memory_format=last)
    expected, gradients = _gradients(conv, x)
    names = list(conv.state_dict())
    speed_small_maps_(conv)
    out, found = _gradients(copy.deepcopy(conv), x)
    assert _is_product(out) == small and not _is_product(expected)
    assert list(conv.state_dict()) == names
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-14)
    for ours, theirs in zip(found, gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_in_bf16_no_less_exact_than_torch() -> None:
    conv = nn.Conv2d(32, 48, 3, padding=1)
    x = torch.randn(64, 32, 2, 2)
    _, exact = _gradients(copy.deepcopy(conv).double(), x.double())
    _, theirs = _gradients(conv, x, bf16=True)
    theirs = [g.clone() for g in theirs]
    speed_small_maps_(conv)
    out, ours = _gradients(conv, x, bf16=True)
    assert out.dtype == torch.bfloat16 and _is_product(out)
    for a, b, truth in zip(ours, theirs, exact, strict=True):
        assert a.dtype == b.dtype == torch.float32
        assert (a - truth).norm() < 1.1 * (b - truth).norm()


def test_without_gradients_and_recomputed() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
    x = torch.randn(2, 3, 4, 4)
    expected, gradients = _gradients(network, x)
    gradients = [g.clone() for g in gradients]
    speed_small_maps_(network)
    with torch.no_grad():
        torch.testing.assert_close(network(x), expected)
    recompute_(nn.Sequential(network))
    for ours, theirs in zip(_gradients(network, x)[1], gradients, strict=True):
        torch.testing.assert_close(ours, theirs)
