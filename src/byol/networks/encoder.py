"""Encoders by name, and the wrapper that normalises their input.

Names of the paper's ResNets and of the ConvNet are ours, every other one is timm's.
"""

import copy
import re
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from byol.errors import UserError
from byol.networks.convnet import ConvNet, init_official_
from byol.networks.norm import norm_layer
from byol.networks.resnet import BLOCKS, ZeroGamma, resnet

RESNET = re.compile(r"resnet(18|34|50|101|152|200)(?:-([1-9])x)?")
CONVNET = re.compile(r"convnet(?:-([1-9]\d*))?")
BUILD_DEFAULTS: dict[str, Any] = {
    "in_chans": 3, "stem": "large", "reference": False, "zero_gamma": False,
    "image_size": None, "norm": "batch", "norm_images": None,
}  # fmt: skip


def build_encoder(
    model: str,
    in_chans: int = 3,
    stem: str = "large",
    reference: bool = False,
    zero_gamma: ZeroGamma | Literal["false", "true"] = False,
    image_size: int | None = None,
    norm: str = "batch",
    norm_images: int | None = None,
) -> nn.Module:
    """The encoder `model`, images (B, in_chans, H, W) to features (B, num_features).

    "resnet18" to "resnet200", "resnet50-2x" (width) and "convnet", "convnet-32" (width) are ours;
    any other name is timm's, and "timm/resnet18" asks for timm's where both have one;
    "torchvision/resnet18" asks for torchvision's, without its last linear layer. `norm` is one of
    `norm_layer`; "group-ws" standardises the weights of the convolutions too. `norm_images` is the
    number of images over which batch norm takes its statistics.

    `reference` makes ours the official network: SAME padding, bias-corrected norm averages,
    projection shortcut in group 0, truncated normal initialisation. A timm model takes the
    initialisation alone. `zero_gamma` starts the last norm of each residual block of our ResNets
    at 0 ("identity": of those whose shortcut is the identity); in reference mode in bottlenecks
    only, as the official code. timm's own ResNets
    start it at 0 by themselves.

    Raises UserError for unknown names and for what a model cannot do.
    """
    starts: ZeroGamma = "identity" if zero_gamma == "identity" else zero_gamma in (True, "true")
    _check(model, in_chans, stem, reference, starts, norm, norm_images)
    padding = "same" if reference else "torch"
    layer = norm_layer(norm, True, reference, norm_images)
    standardised = norm == "group-ws"
    module: nn.Module
    if found := RESNET.fullmatch(model):
        depth, width = int(found[1]), int(found[2] or 1)
        gamma = starts if depth >= 50 or not reference else False
        module = resnet(
            depth, width, in_chans, stem, padding, layer, reference, gamma, standardised
        )
    elif found := CONVNET.fullmatch(model):
        module = ConvNet(int(found[1] or 16), in_chans, padding, layer, standardised)
    elif model.startswith("torchvision/"):
        module = _torchvision(model.removeprefix("torchvision/"), in_chans, image_size)
    else:
        module = _timm(bare_name(model), in_chans, image_size)
    if reference:
        init_official_(module)
    return module


def _check(
    model: str,
    in_chans: int,
    stem: str,
    reference: bool,
    zero_gamma: ZeroGamma,
    norm: str,
    norm_images: int | None,
) -> None:
    """Refuse what no model, or not this one, can be."""
    if in_chans < 1:
        raise UserError(f"an encoder needs at least 1 input channel, not {in_chans}")
    for name, value, allowed in (
        ("stem", stem, ("large", "small", "small-pad2")),
        ("norm", norm, ("batch", "group", "group-ws", "layer", "none")),
    ):
        if value not in allowed:
            raise UserError(f"unknown {name} {value!r}: choose one of {', '.join(allowed)}")
    if norm != "batch" and reference:
        raise UserError("the reference network has batch norm: leave norm at 'batch'")
    ours = "resnet18 to resnet200"
    if not RESNET.fullmatch(model) and (stem != "large" or zero_gamma):
        what = f"stem {stem!r}" if stem != "large" else "zero_gamma"
        raise UserError(f"{what} is for our {ours}, not for {model}: leave it out, or take those")
    is_ours = RESNET.fullmatch(model) or CONVNET.fullmatch(model)
    if (norm != "batch" or norm_images) and not is_ours:
        what = f"norm {norm!r}" if norm != "batch" else "norm_images"
        raise UserError(f"{what} is for our {ours} and convnet: {model} has norms of its own")


def _timm(name: str, in_chans: int, image_size: int | None) -> nn.Module:
    """A timm model without its classifier, tried on one blank batch of the size asked for."""
    import timm

    if not timm.is_model(name):
        raise UserError(_unknown(name, timm.list_models()))
    config = timm.get_pretrained_cfg(name)
    size = image_size or (config.input_size[-1] if config else 224)
    options: dict[str, Any] = {"num_classes": 0, "in_chans": in_chans}
    if config and config.fixed_input_size:
        options["img_size"] = size
    try:
        module: nn.Module = timm.create_model(name, pretrained=False, **options)
        patch = getattr(getattr(module, "patch_embed", None), "patch_size", None)
        if isinstance(patch, tuple) and size % patch[0]:
            raise UserError(
                f"{name} cuts images into patches of {patch[0]} pixels, which {size} is no"
                f" multiple of: choose an image size that is"
            )
        features = feature_size(module, in_chans, size)
    except UserError:
        raise
    except Exception as error:  # timm's models fail in as many ways as there are models
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"timm's {name} cannot take images of {in_chans} channels and {size} x {size} pixels"
            f" ({reason}): choose another image size or model"
        ) from error
    # num_features of some timm models is the width before their pooling head.
    module.num_features = features  # type: ignore[assignment]
    return module


def _torchvision(name: str, in_chans: int, image_size: int | None) -> nn.Module:
    """A torchvision classifier without its last linear layer, tried on one blank batch."""
    from torchvision import models

    if name not in models.list_models(module=models):
        raise UserError(_unknown(name, models.list_models(module=models)))
    module: nn.Module = models.get_model(name, weights=None)
    linears = [path for path, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    if in_chans != 3 or not linears:
        what = f"{in_chans} channels, not 3" if linears else "no linear layer at its end"
        raise UserError(f"torchvision's {name} cannot be the encoder: {what}; take one of timm's")
    module.set_submodule(linears[-1], nn.Identity())
    try:
        module.num_features = feature_size(module, 3, image_size or 224)  # type: ignore[assignment]
    except (AssertionError, RuntimeError, ValueError) as error:  # as many ways as there are models
        raise UserError(
            f"torchvision's {name} cannot take images of {image_size or 224} pixels"
            f" ({str(error).splitlines()[0]}): choose another image size or model"
        ) from error
    return module


def _unknown(name: str, timm_names: Sequence[str]) -> str:
    import difflib

    names = [f"resnet{depth}" for depth in BLOCKS] + ["resnet50-2x", "convnet", *timm_names]
    near = difflib.get_close_matches(name, dict.fromkeys(names), n=3, cutoff=0.5)
    hint = f"the nearest names are {', '.join(near)}; " if near else ""
    return (
        f"unknown model {name!r}: {hint}ours are resnet18 to resnet200, resnet50-2x (width) and"
        " convnet, all others timm's"
    )


def feature_size(module: nn.Module, in_chans: int, image_size: int) -> int:
    """D of a module that maps images (B, C, S, S) to features (B, D), found by trying.

    A copy is tried, in evaluation mode, so that no buffer, mode or random number of the module
    moves. Raises UserError if it returns anything else than a (B, D) tensor.
    """
    trial = copy.deepcopy(module).eval()
    parameter = next(trial.parameters(), torch.empty(0))
    blank = parameter.new_zeros(2, in_chans, image_size, image_size)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        features = trial(blank)
    if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != 2:
        shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise UserError(
            f"the encoder turns 2 images into {shape}, but a tensor (2, features) is needed:"
            " pool over space and drop the classifier"
        )
    return features.shape[1]


def count_parameters(module: nn.Module) -> int:
    """Number of trainable values."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


class Encoder(nn.Module):
    """Images (B, C, H, W) in [0, 1] to features (B, D): normalisation by channel, then `module`.

    mean, std: C numbers each. `num_features` is the module's own, or found by trying images of
    `image_size` pixels where that is given or the module has none.
    """

    mean: Tensor  # (C,)
    std: Tensor  # (C,)

    def __init__(
        self,
        module: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        image_size: int | None = None,
    ) -> None:
        super().__init__()
        self.module = module
        known = getattr(module, "num_features", None)
        if isinstance(known, int) and image_size is None:
            self.num_features = known
        else:
            self.num_features = feature_size(module, len(mean), image_size or 224)
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, images: Tensor) -> Tensor:
        normalised = (images - self.mean[:, None, None]) / self.std[:, None, None]  # (B, C, H, W)
        features: Tensor = self.module(normalised)  # (B, D)
        return features


def bare_name(model: str) -> str:
    return model.removeprefix("timm/")
