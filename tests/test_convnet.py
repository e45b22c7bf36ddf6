"""The plain ConvNet and the official initialisation."""

import pytest
import torch
from torch import nn

from byol.networks.convnet import ConvNet, init_official_
from byol.networks.encoder import count_parameters
from byol.networks.norm import DebiasedBatchNorm


def test_size() -> None:
    network = ConvNet()
    assert count_parameters(network) == 135_440
    assert network.num_features == 128
    assert network.forward_features(torch.rand(2, 3, 32, 32)).shape == (2, 128, 4, 4)
    assert ConvNet(32, in_chans=5)(torch.rand(2, 5, 32, 32)).shape == (2, 256)


@pytest.mark.parametrize("side", [1, 3, 8, 33])
@pytest.mark.parametrize("padding", ["torch", "same"])
def test_any_image_size(side: int, padding: str) -> None:
    network = ConvNet(padding=padding, norm=DebiasedBatchNorm)
    assert network(torch.rand(3, 3, side, side)).isfinite().all()


def test_channels_last_and_autocast() -> None:
    network = ConvNet()
    x = torch.rand(4, 3, 32, 32)
    expected = network(x)
    network = network.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        features = network(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(features.float(), expected, rtol=0.1, atol=0.1)


def test_official_initialisation() -> None:
    module = nn.Sequential(nn.Conv2d(32, 200, 3), nn.BatchNorm2d(200), nn.Linear(200, 300))
    nn.init.zeros_(module.get_parameter("1.weight"))
    init_official_(module)
    for name, fan_in in (("0", 32 * 9), ("2", 200)):
        weight = module.get_parameter(f"{name}.weight") * fan_in**0.5
        assert abs(weight.std().item() - 0.87963) < 0.01  # normal of sigma 1, cut at 2
        assert abs(weight.mean().item()) < 0.02
        assert weight.abs().max().item() <= 2.0 + 1e-6
        assert not module.get_parameter(f"{name}.bias").any()
    assert not module.get_parameter("1.weight").any()  # norms stay as built
