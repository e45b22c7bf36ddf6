"""A plain ConvNet of five convolutions for 32-pixel images, and the official initialisation.

The ConvNet is no network of the paper: it is small enough to read in one screen and to learn in
minutes on a CPU. The initialisation is Haiku's default (`basic.py`, `conv.py`), which the
official code uses throughout.
"""

from functools import partial

import torch
from torch import Tensor, nn

from byol.networks.resnet import Norm, conv2d


class ConvNet(nn.Module):
    """Images (B, C, H, W) to features (B, D), D = `num_features` = 8 * width.

    Each convolution is followed by norm and ReLU. The map is H / 8 high, rounded up, so images
    of any size pass.
    """

    def __init__(
        self,
        width: int = 16,
        in_chans: int = 3,
        padding: str = "torch",
        norm: Norm = nn.BatchNorm2d,
        standardised: bool = False,
    ) -> None:
        super().__init__()
        w, conv = width, partial(conv2d, padding=padding, standardised=standardised)
        pool = partial(nn.MaxPool2d, 2, ceil_mode=True)

        def layer(c_in: int, c_out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
            return nn.Sequential(
                conv(c_in, c_out, kernel, stride), norm(c_out), nn.ReLU(inplace=True)
            )

        self.padding, self.num_features = padding, 8 * w
        self.layers = nn.Sequential(
            layer(in_chans, w, kernel=5, stride=2),  # (B, w, H/2, W/2)
            layer(w, 2 * w),
            pool(),  # (B, 2w, H/4, W/4)
            layer(2 * w, 4 * w),
            layer(4 * w, 4 * w),
            pool(),  # (B, 4w, H/8, W/8)
            layer(4 * w, 8 * w),  # (B, 8w, H/8, W/8)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to feature maps (B, D, H / 8, W / 8)."""
        features: Tensor = self.layers(x)
        return features

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_features(x).mean((2, 3))  # (B, D)


@torch.no_grad()
def init_official_(module: nn.Module) -> None:
    """Redraw every convolution and linear layer as the official code does, in place.

    Weights are normal with sigma 1 / sqrt(fan_in), cut at 2 sigma and not rescaled (so their
    deviation is 0.88 sigma); biases are 0. Norms are left as built: scale 1, or 0 where
    `zero_gamma` set it, and offset 0.
    """
    for layer in module.modules():
        if isinstance(layer, nn.modules.conv._ConvNd | nn.Linear):
            sigma = layer.weight[0].numel() ** -0.5
            nn.init.trunc_normal_(layer.weight, std=sigma, a=-2 * sigma, b=2 * sigma)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
