"""Dense prediction on an encoder: its maps, and the heads of segmentation and depth (paper
appendix D.4 and D.6; heads of He et al., "Momentum contrast", 2020, and of Laina et al., "Deeper
depth prediction with fully convolutional residual networks", 2016).
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from byol.errors import UserError
from byol.networks.encoder import Encoder
from byol.networks.resnet import SameConv2d


def dilate_last_stage_(module: nn.Module) -> bool:
    """Stride 1 and 3x3 convolutions of dilation 2 in `layer4` of a ResNet of ours, torchvision's or
    timm's, in place: maps of 1/16 of the image instead of 1/32. False where there is none."""
    stage = getattr(module, "layer4", None)
    if not isinstance(stage, nn.Module):
        return False
    for layer in stage.modules():
        if isinstance(layer, nn.Conv2d):
            layer.stride = (1, 1)
            if layer.kernel_size == (3, 3):
                layer.dilation = (2, 2)
                if not isinstance(layer, SameConv2d):  # it pads by itself
                    layer.padding = (2, 2)
        elif isinstance(layer, nn.AvgPool2d):  # before the 1x1 of the shortcut of a ResNet-D
            layer.kernel_size = layer.stride = 1
    return True


def feature_maps(module: nn.Module, x: Tensor) -> Tensor:
    """Normalised images (B, C, H, W) to the maps (B, D, h, w) before the pooling of `module`."""
    if callable(forward := getattr(module, "forward_features", None)):
        maps: Tensor = forward(x)
        last = getattr(module, "output_fmt", "NCHW") == "NHWC"  # timm's Swin and relatives
        return maps.permute(0, 3, 1, 2) if last and maps.ndim == 4 else maps
    layers = "conv1 bn1 relu maxpool layer1 layer2 layer3 layer4".split()
    if not all(hasattr(module, name) for name in layers):  # torchvision's ResNet
        raise UserError(
            f"a {type(module).__name__} shows no feature maps: give it a method forward_features "
            "that returns (B, D, h, w), or take a ResNet"
        )
    for name in layers:
        x = getattr(module, name)(x)
    return x


class DenseEncoder(nn.Module):
    """Images (B, C, H, W) in [0, 1] to feature maps (B, D, h, w), D = `channels`.

    A copy of the encoder is taken, with its last stage dilated if asked for and if it is a ResNet.
    It is tried on a blank image of `size` (height, width). Raises UserError where there are no
    maps, such as of a vision transformer.
    """

    def __init__(self, encoder: Encoder, size: tuple[int, int], dilate: bool = False) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder)
        if dilate:
            dilate_last_stage_(self.encoder.module)
        self.channels = self._try(size)

    def forward(self, images: Tensor) -> Tensor:
        mean, std = self.encoder.mean[:, None, None], self.encoder.std[:, None, None]
        return feature_maps(self.encoder.module, (images - mean) / std)

    @torch.no_grad()
    def _try(self, size: tuple[int, int]) -> int:
        self.eval()
        name = type(self.encoder.module).__name__
        blank = self.encoder.mean[None, :, None, None].expand(1, -1, *size)
        try:
            maps = self(blank)
        except UserError:
            raise
        except Exception as error:  # models fail in as many ways as there are models
            raise UserError(
                f"{name} cannot take images of {size[1]} x {size[0]} pixels ("
                f"{str(error).splitlines()[0] if str(error) else type(error).__name__}): dense "
                "prediction needs an encoder for any size, such as a ResNet"
            ) from error
        if maps.ndim != 4:
            raise UserError(
                f"{name} turns an image into {tuple(maps.shape)}, which is no map (1, D, h, w): "
                "dense prediction needs a convolutional encoder, such as a ResNet"
            )
        return maps.shape[1]


class DenseNetwork(nn.Module):
    """Images (B, C, H, W) in [0, 1] to one map of the same size for each output of the head.

    `frozen`: the encoder keeps its weights and its norm statistics; the head alone is trained.
    """

    def __init__(self, encoder: DenseEncoder, head: nn.Module, frozen: bool = False) -> None:
        super().__init__()
        self.encoder, self.head, self.frozen = encoder, head, frozen
        self.encoder.requires_grad_(not frozen)

    def train(self, mode: bool = True) -> "DenseNetwork":
        super().train(mode)
        self.encoder.train(mode and not self.frozen)
        return self

    def forward(self, images: Tensor) -> Tensor:
        maps = self.head(self.encoder(images))  # (B, K, h, w)
        return F.interpolate(maps.float(), images.shape[2:], mode="bilinear")  # (B, K, H, W)


def fcn_head(channels: int, classes: int, width: int = 256) -> nn.Sequential:
    """Maps (B, channels, h, w) to scores (B, classes, h, w): two 3x3 of dilation 6, and a 1x1."""

    def layer(c_in: int) -> nn.Sequential:
        conv = nn.Conv2d(c_in, width, 3, padding=6, dilation=6, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True))

    return nn.Sequential(layer(channels), layer(width), nn.Conv2d(width, classes, 1))


class UpProjection(nn.Module):
    """Maps (B, c_in, h, w) to (B, c_out, 2h, 2w): a residual block on doubled maps.

    Both branches begin with a 5x5 on the map whose pixels are set apart by zeros. A transposed
    convolution of stride 2 computes that without the zeros, as do the four interleaved small
    convolutions of the "fast" block, of which it is the same sum.
    """

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(
            c_in, 2 * c_out, 5, stride=2, padding=2, output_padding=1, bias=False
        )
        self.norm1, self.norm2 = nn.BatchNorm2d(2 * c_out), nn.BatchNorm2d(c_out)
        self.conv = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        branch, shortcut = self.norm1(self.up(x)).chunk(2, 1)  # (B, c_out, 2h, 2w) each
        return F.relu(self.norm2(self.conv(F.relu(branch))) + shortcut)


def depth_head(channels: int, widths: tuple[int, ...] = (512, 256, 128, 64)) -> nn.Sequential:
    """Maps (B, channels, h, w) to depths (B, 1, 16h, 16w): an up-projection for each width, and a
    3x3."""
    sizes = (channels, *widths)
    blocks = [UpProjection(*pair) for pair in zip(sizes, sizes[1:], strict=False)]
    return nn.Sequential(*blocks, nn.Conv2d(widths[-1], 1, 3, padding=1))
