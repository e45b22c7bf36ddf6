"""Weights that no pixel reaches."""

import torch
from torch import nn

from byol.networks.resnet import resnet
from byol.networks.unseen import zero_unseen_


def test_a_map_of_one_pixel_meets_the_centre_alone() -> None:
    layer = nn.Conv2d(2, 3, 3, padding=1)
    assert zero_unseen_(layer, 2, 1) == 8 * 6
    assert (layer.weight[:, :, 1, 1] != 0).all()
    assert layer.weight.count_nonzero() == 6


def test_two_pixels_under_stride_two_meet_four_taps() -> None:
    layer = nn.Conv2d(1, 1, 3, stride=2, padding=1)
    zero_unseen_(layer, 1, 2)
    assert (layer.weight[0, 0] != 0).tolist() == [
        [False] * 3,
        [False, True, True],
        [False, True, True],
    ]


def test_what_is_zeroed_is_what_gets_no_gradient_and_features_stay() -> None:
    torch.manual_seed(0)
    network = resnet(18, 1).double()
    images = torch.rand(8, 3, 32, 32, dtype=torch.float64)
    network(images).square().sum().backward()
    weights = [p for p in network.parameters() if p.ndim == 4]
    without = [torch.eq(p.grad, 0) for p in weights if p.grad is not None]
    network.eval()
    before = network(images)
    count = zero_unseen_(network, 3, 32)
    assert torch.equal(network(images), before)
    zeroed = [torch.eq(p, 0) for p in weights]
    assert count == sum(int(z.sum()) for z in zeroed) == 256 * 512 * 5 + 3 * 512 * 512 * 8
    for gradient, zero in zip(without, zeroed, strict=True):
        assert torch.equal(gradient.all((0, 1)), zero.all((0, 1)))


def test_larger_images_reach_everything() -> None:
    assert zero_unseen_(resnet(18, 1), 3, 224) == 0
