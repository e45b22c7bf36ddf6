"""Maps of encoders, dilation, and the heads of dense prediction."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from byol.errors import UserError
from byol.networks.dense import (
    DenseEncoder,
    DenseNetwork,
    UpProjection,
    depth_head,
    dilate_last_stage_,
    fcn_head,
    feature_maps,
)
from byol.networks.encoder import Encoder, build_encoder


def _encoder(model: str, **options: bool) -> Encoder:
    module = build_encoder(model, image_size=64, **options)  # type: ignore[arg-type]
    return Encoder(module, [0.4, 0.5, 0.6], [0.2, 0.3, 0.4], 64).eval()


@pytest.mark.parametrize(
    ("model", "channels", "stride"),
    [
        ("resnet18", 512, 16),
        ("timm/resnet18d", 512, 16),  # its shortcuts have pooling
        ("convnet", 128, 8),
        ("convnext_atto", 320, 32),
    ],
)
def test_maps(model: str, channels: int, stride: int) -> None:
    encoder = _encoder(model)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    dense = DenseEncoder(encoder, (64, 96), dilate=True)
    assert dense(torch.rand(2, 3, 64, 96)).shape == (2, channels, 64 // stride, 96 // stride)
    assert dense.channels == channels
    blank = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(encoder(blank), encoder(blank))
    for name, value in encoder.state_dict().items():  # a copy is dilated
        assert torch.equal(value, before[name])


def test_maps_are_those_before_the_pooling() -> None:
    encoder, images = _encoder("resnet18"), torch.rand(2, 3, 64, 64)
    maps = DenseEncoder(encoder, (64, 64))(images)
    torch.testing.assert_close(maps.mean((2, 3)), encoder(images))
    swin = _encoder("swin_tiny_patch4_window7_224")  # its maps have the channels last
    maps = DenseEncoder(swin, (64, 64))(images)
    torch.testing.assert_close(maps.mean((2, 3)), swin(images))


def test_a_dilated_resnet_is_torchvisions() -> None:
    """Which leaves the very first 3x3 of the stage undilated; the paper dilates all."""
    from torchvision.models import resnet50

    theirs = resnet50(replace_stride_with_dilation=[False, False, True]).eval()
    theirs.layer4[0].conv2.dilation = theirs.layer4[0].conv2.padding = (2, 2)
    ours = build_encoder("resnet50").eval()
    state = {k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")}
    ours.load_state_dict(state)
    assert dilate_last_stage_(ours)
    images = torch.rand(1, 3, 64, 80)
    expected = feature_maps(theirs, images)
    assert expected.shape == (1, 2048, 4, 5)
    torch.testing.assert_close(feature_maps(ours, images), expected)


def test_same_padding_can_be_dilated() -> None:
    """The official network's last stage keeps every position: its 3x3 reach 2 pixels."""
    module = build_encoder("resnet18", reference=True)
    dilate_last_stage_(module)
    conv = module.layer4[0].conv1  # type: ignore[index, union-attr]
    x = torch.rand(1, 256, 7, 6)
    expected = F.conv2d(x, conv.weight, padding=2, dilation=2)
    torch.testing.assert_close(conv(x), expected)


def test_encoders_without_maps_are_refused() -> None:
    vit = Encoder(build_encoder("vit_tiny_patch16_224", image_size=64), [0.5] * 3, [0.2] * 3, 64)
    with pytest.raises(UserError, match="VisionTransformer.*convolutional encoder"):
        DenseEncoder(vit, (64, 64))
    with pytest.raises(UserError, match="cannot take images of 50 x 50"):
        DenseEncoder(vit, (50, 50))
    flat = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    with pytest.raises(UserError, match="forward_features"):
        DenseEncoder(Encoder(flat, [0.5] * 3, [0.2] * 3, 2), (2, 2))


def test_an_up_projection_is_the_papers() -> None:
    """Both branches: zeros between the pixels, then 5x5; and the four small ones of its fast form,
    which see the rows and columns of the 5x5 that meet pixels rather than zeros."""
    block = UpProjection(3, 4).eval()
    x = torch.rand(2, 3, 5, 6)
    kernel = block.up.weight.transpose(0, 1).flip(2, 3)  # (8, 3, 5, 5), as of a convolution
    apart = torch.zeros(2, 3, 10, 12)
    apart[:, :, ::2, ::2] = x
    expected = F.conv2d(apart, kernel, padding=2)
    torch.testing.assert_close(block.up(x), expected)
    torch.testing.assert_close(_interleaved(x, kernel), expected)
    branch, shortcut = block.norm1(expected).chunk(2, 1)
    out = F.relu(block.norm2(block.conv(F.relu(branch))) + shortcut)
    torch.testing.assert_close(block(x), out)


def _interleaved(x: Tensor, kernel: Tensor) -> Tensor:
    """Convolutions of 3x3, 3x2, 2x3 and 2x2, whose outputs take turns (Laina et al., figure 3)."""
    out = torch.empty(len(x), len(kernel), 2 * x.shape[2], 2 * x.shape[3])
    for row in (0, 1):
        for column in (0, 1):
            pads = (1 - column, 1, 1 - row, 1)
            part = kernel[:, :, row::2, column::2]
            out[:, :, row::2, column::2] = F.conv2d(F.pad(x, pads), part)
    return out


def test_heads() -> None:
    maps = torch.rand(2, 32, 4, 5)
    fcn = fcn_head(32, 7)
    assert fcn(maps).shape == (2, 7, 4, 5)
    convs = [layer for layer in fcn.modules() if isinstance(layer, nn.Conv2d)]
    assert [(c.out_channels, c.kernel_size[0], c.dilation[0]) for c in convs] == [
        (256, 3, 6), (256, 3, 6), (7, 1, 1)
    ]  # fmt: skip
    depth = depth_head(32)
    assert depth(maps).shape == (2, 1, 64, 80)
    ups = [layer for layer in depth if isinstance(layer, UpProjection)]
    assert [block.conv.out_channels for block in ups] == [512, 256, 128, 64]


def test_a_frozen_encoder_keeps_weights_and_statistics() -> None:
    network = DenseNetwork(DenseEncoder(_encoder("convnet"), (32, 32)), fcn_head(128, 3), True)
    network.train()
    before = {n: v.clone() for n, v in network.state_dict().items()}
    sgd = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 0.1)
    out = network(torch.rand(2, 3, 32, 32))
    assert out.shape == (2, 3, 32, 32)
    out.square().sum().backward()
    sgd.step()
    moved = {n for n, v in network.state_dict().items() if not torch.equal(v, before[n])}
    assert moved and all(name.startswith("head.") for name in moved)
    assert "head.2.weight" in moved and "head.0.1.running_mean" in moved
