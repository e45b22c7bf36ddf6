"""Weight standardisation: moments, invariances, and where the parameters stay."""

import torch
from torch import nn

from byol.networks.encoder import build_encoder
from byol.networks.standardised import StandardisedConv2d, StandardisedLinear, standardise


def test_moments_of_each_output() -> None:
    for weight in (torch.randn(6, 3, 5, 5) * 0.01 + 2, torch.randn(6, 40) * 30 - 1):
        used = standardise(weight.double()).flatten(1)
        torch.testing.assert_close(used.mean(1), torch.zeros(6).double(), rtol=0, atol=1e-9)
        torch.testing.assert_close(
            used.std(1, correction=0), torch.ones(6).double(), rtol=1e-5, atol=0
        )


def test_layers_use_standardised_weights_and_keep_the_raw_ones() -> None:
    conv, linear = StandardisedConv2d(3, 4, 3, 2, 1, bias=False), StandardisedLinear(12, 5)
    image, vector = torch.randn(2, 3, 8, 8), torch.randn(2, 12)
    expected = nn.functional.conv2d(image, standardise(conv.weight), None, 2, 1)
    assert torch.equal(conv(image), expected)
    expected = nn.functional.linear(vector, standardise(linear.weight), linear.bias)
    assert torch.equal(linear(vector), expected)
    assert set(conv.state_dict()) == {"weight"} and set(linear.state_dict()) == {"weight", "bias"}


def test_scale_and_offset_of_the_weights_do_not_matter() -> None:
    layer, x = StandardisedLinear(12, 5).double(), torch.randn(3, 12).double()
    before = layer(x)
    with torch.no_grad():
        layer.weight.mul_(7).add_(torch.randn(5, 1))
    torch.testing.assert_close(layer(x), before)
    layer(x).square().sum().backward()
    assert layer.weight.grad is not None  # so the gradient is orthogonal to both
    for along in (layer.weight, torch.ones_like(layer.weight)):
        along = along.detach()
        torch.testing.assert_close((layer.weight.grad * along).sum(1), torch.zeros(5).double())


def test_every_convolution_of_an_encoder() -> None:
    for model in ("resnet18", "resnet50", "convnet"):
        module = build_encoder(model, norm="group-ws")
        convolutions = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
        assert all(isinstance(conv, StandardisedConv2d) for conv in convolutions)
        assert set(module.state_dict()) == set(build_encoder(model, norm="group").state_dict())
