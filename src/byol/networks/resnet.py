"""The paper's ResNets: depths 18 to 200, every convolution widened by one factor (paper section
3.3; official `byol/utils/networks.py` and Haiku's `nets/resnet.py`).

Parameters carry torchvision's names. The defaults are torchvision's network; `padding="same"`,
`group0_projection=True` and `norm=DebiasedBatchNorm` make it the official one.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from byol.networks.standardised import StandardisedConv2d

BLOCKS = {  # blocks per group
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}

Norm = Callable[[int], nn.Module]  # channels to layer
Conv = Callable[..., nn.Conv2d]
ZeroGamma = bool | Literal["identity"]


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding: ceil(n / stride) outputs, the odd pixel after.

    An even image is padded (0, 1) by a 3x3 of stride 2, where torch's padding=1 pads (1, 1).
    """

    def forward(self, input: Tensor) -> Tensor:
        pads: list[int] = []
        for axis in (1, 0):  # F.pad starts from the last axis
            n, s = input.shape[2 + axis], self.stride[axis]
            k = self.dilation[axis] * (self.kernel_size[axis] - 1) + 1  # pixels that it spans
            total = max((-(-n // s) - 1) * s + k - n, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(input, pads))


def conv2d(
    c_in: int,
    c_out: int,
    kernel: int,
    stride: int = 1,
    padding: str = "torch",
    standardised: bool = False,
) -> nn.Conv2d:
    """Convolution without bias; `padding` is "torch" (kernel // 2 on each side) or "same".

    `standardised` weights are for torch's padding alone.
    """
    if standardised:
        return StandardisedConv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
    if padding == "same" and stride > 1 and kernel > 1:  # otherwise the two agree
        return SameConv2d(c_in, c_out, kernel, stride, bias=False)
    return nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)


def _shortcut(c_in: int, c_out: int, stride: int, conv: Conv, norm: Norm) -> nn.Sequential:
    return nn.Sequential(conv(c_in, c_out, 1, stride), norm(c_out))


class BasicBlock(nn.Module):
    """3x3 (with the stride), 3x3, added to the shortcut."""

    def __init__(
        self, c_in: int, c_out: int, stride: int, projects: bool, conv: Conv, norm: Norm
    ) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(c_in, c_out, 3, stride), norm(c_out)
        self.conv2, self.bn2 = conv(c_out, c_out, 3), norm(c_out)
        self.downsample = _shortcut(c_in, c_out, stride, conv, norm) if projects else None

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = F.relu_(self.bn1(self.conv1(x)))
        return F.relu_(self.bn2(self.conv2(y)).add_(shortcut))


class Bottleneck(nn.Module):
    """1x1 to a quarter of the channels, 3x3 (with the stride), 1x1, added to the shortcut."""

    def __init__(
        self, c_in: int, c_out: int, stride: int, projects: bool, conv: Conv, norm: Norm
    ) -> None:
        super().__init__()
        inner = c_out // 4
        self.conv1, self.bn1 = conv(c_in, inner, 1), norm(inner)
        self.conv2, self.bn2 = conv(inner, inner, 3, stride), norm(inner)
        self.conv3, self.bn3 = conv(inner, c_out, 1), norm(c_out)
        self.downsample = _shortcut(c_in, c_out, stride, conv, norm) if projects else None

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = F.relu_(self.bn1(self.conv1(x)))
        y = F.relu_(self.bn2(self.conv2(y)))
        return F.relu_(self.bn3(self.conv3(y)).add_(shortcut))


class ResNet(nn.Module):
    """Images (B, C, H, W) to features (B, D), D = `num_features`: the channels of the last group.

    blocks, channels: of each of the four groups. `stem="small"` is a 3x3 of stride 1 without
    pooling, for images of about 32 pixels; "small-pad2" pads it by 2, as solo-learn does.
    `group0_projection` gives the first block of group 0 a projection shortcut even where its
    channels do not change. `zero_gamma` starts the last norm of every block at scale 0, so that
    each block begins as its shortcut; "identity" leaves out those whose shortcut is a
    convolution, as one of stride 2 sees one pixel in four. `standardised`
    weights are those of every convolution.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        channels: Sequence[int],
        bottleneck: bool,
        *,
        stem_channels: int = 64,
        in_chans: int = 3,
        stem: str = "large",
        padding: str = "torch",
        norm: Norm = nn.BatchNorm2d,
        group0_projection: bool = False,
        zero_gamma: ZeroGamma = False,
        standardised: bool = False,
    ) -> None:
        super().__init__()
        self.stem, self.padding, self.num_features = stem, padding, channels[-1]
        conv = partial(conv2d, padding=padding, standardised=standardised)
        kernel, stride = (7, 2) if stem == "large" else (3, 1)
        self.conv1 = conv(in_chans, stem_channels, kernel, stride)
        if stem == "small-pad2":
            self.conv1.padding = (2, 2)
        self.bn1 = norm(stem_channels)
        block = Bottleneck if bottleneck else BasicBlock

        def group(index: int) -> nn.Sequential:
            c_in = channels[index - 1] if index else stem_channels
            c_out, stride = channels[index], 2 if index else 1
            projects = stride > 1 or c_in != c_out or group0_projection
            first = block(c_in, c_out, stride, projects, conv, norm)
            rest = [block(c_out, c_out, 1, False, conv, norm) for _ in range(1, blocks[index])]
            return nn.Sequential(first, *rest)

        self.layer1, self.layer2, self.layer3, self.layer4 = (group(index) for index in range(4))
        self._initialise(zero_gamma)

    def _initialise(self, zero_gamma: ZeroGamma) -> None:
        """As torchvision: He's normal by fan-out; norms keep scale 1 and offset 0."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            elif zero_gamma and isinstance(layer, BasicBlock | Bottleneck):
                if zero_gamma == "identity" and layer.downsample is not None:
                    continue
                last = layer.bn3 if isinstance(layer, Bottleneck) else layer.bn2
                nn.init.zeros_(last.get_parameter("weight"))

    def forward_stem(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to what layer1 takes, (B, 64w, H / 4, W / 4); a small stem's H, W."""
        x = F.relu_(self.bn1(self.conv1(x)))
        if self.stem == "large":
            if self.padding == "same":  # as SameConv2d: odd sides (1, 1), even sides (0, 1)
                odd = (x.shape[2] % 2, x.shape[3] % 2)
                x = F.max_pool2d(x, 3, 2, padding=odd, ceil_mode=True)
            else:
                x = F.max_pool2d(x, 3, 2, padding=1)
        return x

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to feature maps (B, D, h, w); h = H / 32, with a small stem H / 8."""
        x = self.forward_stem(x)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # (B, D, h, w)
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_features(x).mean((2, 3))  # (B, D)


def resnet(
    depth: int,
    width: int = 1,
    in_chans: int = 3,
    stem: str = "large",
    padding: str = "torch",
    norm: Norm = nn.BatchNorm2d,
    group0_projection: bool = False,
    zero_gamma: ZeroGamma = False,
    standardised: bool = False,
) -> ResNet:
    """ResNet-18, 34 (basic blocks), 50, 101, 152 or 200 (bottlenecks), all channels times width.

    Unlike torchvision's wide_resnet50_2, which widens the inner 3x3 only, every convolution is
    widened, the stem included (paper: ResNet-50 1x to 4x, ResNet-200 2x).
    """
    bottleneck = depth >= 50
    scale = 4 * width if bottleneck else width
    return ResNet(
        BLOCKS[depth],
        [scale * channels for channels in (64, 128, 256, 512)],
        bottleneck,
        stem_channels=64 * width,
        in_chans=in_chans,
        stem=stem,
        padding=padding,
        norm=norm,
        group0_projection=group0_projection,
        zero_gamma=zero_gamma,
        standardised=standardised,
    )
