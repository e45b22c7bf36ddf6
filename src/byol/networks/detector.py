"""Faster R-CNN (Ren et al., 2015) on an encoder, from torchvision's parts (paper appendix D.5).

"c4" as in the paper: proposals and RoIAlign on the map of layer3 (conv4), layer4 (conv5) and a
global mean as box head. "fpn": a feature pyramid (Lin et al., 2017) and two linear layers.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from byol.errors import UserError
from byol.networks.encoder import Encoder
from byol.networks.resnet import ResNet

LAYERS = ("layer1", "layer2", "layer3", "layer4")
PYRAMID = 256  # channels of each level of the feature pyramid
HIDDEN = 1024  # units of its box head
_TRIED = 256  # pixels of the blank image that tells channels and strides

Boxes = dict[str, Tensor]  # boxes (N, 4) in pixels, labels (N,) from 0; found ones with scores (N,)


class Detector(nn.Module):
    """Images to boxes. The encoder is copied, and its normalisation of images kept.

    encoder: around a ResNet of ours, torchvision or timm (layer1 to layer4). classes: without the
    background. anchors: sides in pixels; "fpn" takes five, one a level. proposals: kept of an
    image; rois: so many of them train the box head. roi_size: a box is sampled on a grid of this
    side ("fpn": 7). train_norms: batch norms use and update batch statistics while training, else
    they keep the encoder's. frozen: no weight or norm of the encoder changes. precision: "bf16"
    computes the encoder's layers in bfloat16.
    """

    def __init__(
        self,
        encoder: Encoder,
        classes: int,
        neck: str = "c4",
        anchors: Sequence[float] = (32, 64, 128, 256, 512),
        proposals: int = 300,
        rois: int = 128,
        roi_size: int = 14,
        train_norms: bool = False,
        frozen: bool = False,
        precision: str = "fp32",
    ) -> None:
        super().__init__()
        from torchvision.models.detection.faster_rcnn import TwoMLPHead
        from torchvision.ops.feature_pyramid_network import (
            FeaturePyramidNetwork,
            LastLevelMaxPool,
        )

        _check(encoder.module, neck, anchors)
        self.encoder = copy.deepcopy(encoder).eval().requires_grad_(not frozen)
        self.norms_move, self.bf16 = train_norms and not frozen, precision == "bf16"
        with torch.no_grad():
            maps = self._maps(encoder.mean.new_zeros(1, len(encoder.mean), _TRIED, _TRIED))
        widths, strides = [m.shape[1] for m in maps], [_TRIED // m.shape[2] for m in maps]
        self.stride = strides[-1]  # images are padded to a multiple of it
        self.pyramid: nn.Module | None = None
        if neck == "fpn":
            self.pyramid = FeaturePyramidNetwork(widths, PYRAMID, LastLevelMaxPool())
            pool, channels = _Pool(4, 7, strides[0]), PYRAMID
            head, width = TwoMLPHead(PYRAMID * 7 * 7, HIDDEN), HIDDEN
        else:
            pool, channels = _Pool(1, roi_size, strides[2]), widths[2]
            head, width = _Conv5(self.encoder.module.get_submodule("layer4"), self.bf16), widths[3]
            self.encoder.module.layer4 = nn.Identity()  # its weights are the head's now
        self.rpn = _proposer(channels, anchors, neck, proposals)
        self.roi_heads = _box_heads(pool, head, width, classes, rois)

    def train(self, mode: bool = True) -> "Detector":
        super().train(mode)
        if not self.norms_move:
            for layer in self.modules():
                if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                    layer.eval()
        return self

    def losses(self, images: list[Tensor], truth: list[Boxes]) -> dict[str, Tensor]:
        """The four losses: objectness and box of the proposals, class and box of the head.

        images: (C, H, W) each in [0, 1], of any size. Which proposals are taken is drawn from
        torch's global generator.
        """
        from_one = [{**t, "labels": t["labels"] + 1} for t in truth]  # torchvision's 0: background
        return self._run(images, from_one)[1]

    @torch.no_grad()
    def detect(self, images: list[Tensor]) -> list[Boxes]:
        """At most 100 boxes of each image, with labels from 0 and scores in [0, 1]."""
        found = self._run(images, None)[0]
        return [{**boxes, "labels": boxes["labels"] - 1} for boxes in found]

    def _run(
        self, images: list[Tensor], truth: list[Boxes] | None
    ) -> tuple[list[Boxes], dict[str, Tensor]]:
        from torchvision.models.detection.image_list import ImageList

        batch, sizes = self._stack(images), [(i.shape[1], i.shape[2]) for i in images]
        with torch.autocast(batch.device.type, torch.bfloat16, enabled=self.bf16):
            maps = self._maps(batch)
        if self.pyramid is None:
            features = {"0": maps[2].float()}
        else:
            features = self.pyramid({str(i): m.float() for i, m in enumerate(maps)})
        proposals, first = self.rpn(ImageList(batch, sizes), features, truth)
        found, second = self.roi_heads(features, proposals, sizes, truth)
        return found, {**first, **second}

    def _stack(self, images: list[Tensor]) -> Tensor:
        """Normalised images, padded with zeros to one size, (B, C, H, W)."""
        mean, std = self.encoder.mean[:, None, None], self.encoder.std[:, None, None]
        sides = [max(image.shape[axis] for image in images) for axis in (1, 2)]
        height, width = (-(-side // self.stride) * self.stride for side in sides)
        padded = [
            F.pad((i - mean) / std, (0, width - i.shape[2], 0, height - i.shape[1])) for i in images
        ]
        return torch.stack(padded).contiguous(memory_format=torch.channels_last)

    def _maps(self, x: Tensor) -> list[Tensor]:
        """Maps of layer1 to layer4 (the latter is layer3's again where it is the box head)."""
        module: Any = self.encoder.module
        if isinstance(module, ResNet):
            x = module.forward_stem(x)
        else:  # torchvision's and timm's
            activation = module.act1 if hasattr(module, "act1") else module.relu
            x = module.maxpool(activation(module.bn1(module.conv1(x))))
        maps = []
        for name in LAYERS:
            x = getattr(module, name)(x)
            maps.append(x)
        return maps


class _Conv5(nn.Module):
    """Sampled boxes (R, C, s, s) to features (R, D): the last group of a ResNet, global mean."""

    def __init__(self, layer4: nn.Module, bf16: bool) -> None:
        super().__init__()
        self.layer4, self.bf16 = layer4, bf16

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            y: Tensor = self.layer4(x)  # (R, D, s / 2, s / 2)
        return y.float().mean((2, 3))


class _Pool(nn.Module):
    """RoIAlign. torchvision's takes the scale of a map from the unpadded images, which is wrong by
    a factor where the padding is a large part of a narrow image: here the padded size is given."""

    def __init__(self, levels: int, size: int, stride: int) -> None:
        super().__init__()
        from torchvision.ops import MultiScaleRoIAlign

        names = [str(level) for level in range(levels)]
        self.align, self.stride = MultiScaleRoIAlign(names, size, sampling_ratio=2), stride

    def forward(
        self, maps: dict[str, Tensor], boxes: list[Tensor], sizes: list[tuple[int, int]]
    ) -> Tensor:
        height, width = (side * self.stride for side in maps["0"].shape[2:])
        pooled: Tensor = self.align(maps, boxes, [(height, width)])
        return pooled


def _proposer(channels: int, anchors: Sequence[float], neck: str, proposals: int) -> nn.Module:
    """The region proposal network, with the thresholds of Ren et al."""
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

    sizes = tuple((side,) for side in anchors) if neck == "fpn" else (tuple(anchors),)
    generator = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes))
    head = RPNHead(channels, generator.num_anchors_per_location()[0])
    before = {"training": 4 * proposals, "testing": 4 * proposals}  # non-maximum suppression
    after = {"training": proposals, "testing": proposals}
    network: nn.Module = RegionProposalNetwork(
        generator, head, 0.7, 0.3, 256, 0.5, before, after, 0.7
    )
    return network


def _box_heads(pool: nn.Module, head: nn.Module, width: int, classes: int, rois: int) -> nn.Module:
    """Class and box of each proposal: a quarter of those trained on are objects."""
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
    from torchvision.models.detection.roi_heads import RoIHeads

    predictor = FastRCNNPredictor(width, classes + 1)
    heads: nn.Module = RoIHeads(
        pool, head, predictor, 0.5, 0.5, rois, 0.25, None, 0.05, 0.5, 100
    )  # fmt: skip
    return heads


def _check(module: nn.Module, neck: str, anchors: Sequence[float]) -> None:
    if not all(hasattr(module, name) for name in ("conv1", "bn1", *LAYERS)):
        raise UserError(
            f"detection needs a ResNet with layer1 to layer4 (ours, torchvision's or timm's), and "
            f"{type(module).__name__} is none"
        )
    if neck == "fpn" and len(anchors) != 5:
        raise UserError(f"anchors has {len(anchors)} sides; fpn takes five, one for each level")
