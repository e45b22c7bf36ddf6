"""Encoders by name, their export, and their way back.

Names of the paper's ResNets and of the ConvNet are ours, every other one is timm's. An encoder is
exported as `encoder.safetensors`, with the key names of timm and torchvision and nothing else in
it, and `encoder.json`, which says what it is and how to load it. Reading either runs no code.
"""

import contextlib
import copy
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from byol.errors import UserError
from byol.networks.convnet import ConvNet, init_official_
from byol.networks.norm import DebiasedBatchNorm
from byol.networks.resnet import BLOCKS, Norm, resnet

RESNET = re.compile(r"resnet(18|34|50|101|152|200)(?:-([1-9])x)?")
CONVNET = re.compile(r"convnet(?:-([1-9]\d*))?")
BUILD_DEFAULTS: dict[str, Any] = {
    "in_chans": 3, "stem": "large", "reference": False, "zero_gamma": False,
    "image_size": None, "norm": "batch",
}  # fmt: skip


def build_encoder(
    model: str,
    in_chans: int = 3,
    stem: str = "large",
    reference: bool = False,
    zero_gamma: bool = False,
    image_size: int | None = None,
    norm: str = "batch",
) -> nn.Module:
    """The encoder `model`, images (B, in_chans, H, W) to features (B, num_features).

    "resnet18" to "resnet200", "resnet50-2x" (width) and "convnet", "convnet-32" (width) are ours;
    any other name is timm's, and "timm/resnet18" asks for timm's where both have one. `norm` is
    "batch" or "group" (32 groups, fewer where there are few channels).

    `reference` makes ours the official network: SAME padding, bias-corrected norm averages,
    projection shortcut in group 0, truncated normal initialisation. A timm model takes the
    initialisation alone. `zero_gamma` starts the last norm of each residual block of our ResNets
    at 0; in reference mode in bottlenecks only, as the official code. timm's own ResNets
    start it at 0 by themselves.

    Raises UserError for unknown names and for what a model cannot do.
    """
    _check(model, in_chans, stem, reference, zero_gamma, norm)
    padding = "same" if reference else "torch"
    layer: Norm = DebiasedBatchNorm if reference else nn.BatchNorm2d
    if norm == "group":
        layer = _group_norm
    module: nn.Module
    if found := RESNET.fullmatch(model):
        depth, width = int(found[1]), int(found[2] or 1)
        gamma = zero_gamma and (depth >= 50 or not reference)
        module = resnet(depth, width, in_chans, stem, padding, layer, reference, gamma)
    elif found := CONVNET.fullmatch(model):
        module = ConvNet(int(found[1] or 16), in_chans, padding, layer)
    else:
        module = _timm(_bare(model), in_chans, image_size)
    if reference:
        init_official_(module)
    return module


def _check(
    model: str, in_chans: int, stem: str, reference: bool, zero_gamma: bool, norm: str
) -> None:
    """Refuse what no model, or not this one, can be."""
    if in_chans < 1:
        raise UserError(f"an encoder needs at least 1 input channel, not {in_chans}")
    for name, value, allowed in (
        ("stem", stem, ("large", "small")),
        ("norm", norm, ("batch", "group")),
    ):
        if value not in allowed:
            raise UserError(f"unknown {name} {value!r}: choose one of {', '.join(allowed)}")
    if norm == "group" and reference:
        raise UserError("the reference network has batch norm: leave norm at 'batch'")
    ours = "resnet18 to resnet200"
    if not RESNET.fullmatch(model) and (stem != "large" or zero_gamma):
        what = f"stem {stem!r}" if stem != "large" else "zero_gamma"
        raise UserError(f"{what} is for our {ours}, not for {model}: leave it out, or take those")
    if norm == "group" and not (RESNET.fullmatch(model) or CONVNET.fullmatch(model)):
        raise UserError(f"norm 'group' is for our {ours} and convnet: {model} has norms of its own")


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(32, max(channels // 2, 1)), channels)


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


def _unknown(name: str, timm_names: Sequence[str]) -> str:
    import difflib

    names = [f"resnet{depth}" for depth in BLOCKS] + ["resnet50-2x", "convnet", *timm_names]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
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


def save_encoder(path: str | Path, encoder: Encoder, description: Mapping[str, Any]) -> None:
    """Write `path`.safetensors (the module's weights) and `path`.json, each in one move.

    `description` holds "model" and the other arguments of build_encoder ("custom" for a module of
    one's own), and whatever else should be known of the encoder. The same text travels inside the
    safetensors file, which is therefore enough on its own.
    """
    from safetensors.torch import save

    path = Path(path)
    known = {} if description["model"] == "custom" else BUILD_DEFAULTS
    text = json.dumps({**known, **description, **_facts(encoder, {**known, **description})})
    weights = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in encoder.module.state_dict().items()
    }
    _write(path.with_name(path.name + ".safetensors"), save(weights, metadata={"byol": text}))
    readable = json.dumps(json.loads(text), indent=2) + "\n"
    _write(path.with_name(path.name + ".json"), readable.encode())


def _facts(encoder: Encoder, description: Mapping[str, Any]) -> dict[str, Any]:
    """What the encoder itself says, beside the caller's description."""
    module = encoder.module
    return {
        "network": "online",
        "num_features": encoder.num_features,
        "padding": getattr(module, "padding", "of the module itself"),
        "batch_norm_averages": (
            "bias-corrected, biased variance; plain running_mean and running_var to load"
            if any(isinstance(layer, DebiasedBatchNorm) for layer in module.modules())
            else "of the module itself"
        ),
        "mean": _decimals(encoder.mean),
        "std": _decimals(encoder.std),
        "normalise": "(image in [0, 1] - mean) / std, before the network",
        "load": _how_to_load(description),
    }


def _decimals(values: Tensor) -> list[float]:
    """The shortest decimals that give these numbers again: 0.485, not 0.48500001430511475."""
    return [float(str(value)) for value in values.cpu().numpy()]


def _how_to_load(d: Mapping[str, Any]) -> dict[str, str]:
    """Python for this package, timm and torchvision, or why there is none. `m` is the network."""
    model, file = str(d["model"]), "encoder.safetensors"
    found = RESNET.fullmatch(model)
    own = ", encoder=your_module" if model == "custom" else ""
    calls = {"byol": f"m = byol.load_encoder('{file}'{own})"}
    if model == "custom":
        return calls
    if not (found or CONVNET.fullmatch(model)):
        size = f", img_size={d['image_size']}" if d["image_size"] and _is_fixed(model) else ""
        options = f"num_classes=0, in_chans={d['in_chans']}{size}, checkpoint_path='{file}'"
        return {**calls, "timm": f"m = timm.create_model('{_bare(model)}', {options})"}
    if not found or found[2] not in (None, "1"):
        return {**calls, "timm": "not there", "torchvision": "not there"}
    if d["reference"]:
        why = "not there: SAME padding, and a shortcut more in group 0 of ResNet-18 and 34"
        return {**calls, "timm": why, "torchvision": why}
    groups = d["norm"] == "group"  # timm's GroupNorm has 32 groups by itself
    norm = "norm_layer=lambda c: torch.nn.GroupNorm(32, c)" if groups else ""
    timm_norm = ", norm_layer=timm.layers.GroupNorm" if groups else ""
    kernel, stride = (7, 2) if d["stem"] == "large" else (3, 1)
    steps = []
    if d["stem"] == "small" or d["in_chans"] != 3:
        shape = f"{d['in_chans']}, 64, {kernel}, {stride}, {kernel // 2}, bias=False"
        steps.append(f"m.conv1 = torch.nn.Conv2d({shape})")
    if d["stem"] == "small":
        steps.append("m.maxpool = torch.nn.Identity()")
    load = f"m.load_state_dict(safetensors.torch.load_file('{file}'))"
    name = f"resnet{found[1]}"
    calls["timm"] = "; ".join(
        [f"m = timm.create_model('{name}', num_classes=0{timm_norm})", *steps, load]
    )
    there = f"m = torchvision.models.{name}({norm})"
    if name == "resnet200":
        blocks = "torchvision.models.resnet.Bottleneck, [3, 24, 36, 3]"
        there = f"m = torchvision.models.ResNet({blocks}, {norm})".replace(", )", ")")
    calls["torchvision"] = "; ".join([there, "m.fc = torch.nn.Identity()", *steps, load])
    return calls


def _bare(model: str) -> str:
    return model.removeprefix("timm/")


def _is_fixed(model: str) -> bool:
    import timm

    config = timm.get_pretrained_cfg(_bare(model))
    return bool(config and config.fixed_input_size)


def _write(path: Path, content: bytes) -> None:
    """To a temporary name, to the disk, then renamed: a reader finds the old file or the new."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise UserError(
            f"cannot write {path} ({error.strerror}): free space or choose another folder"
            " (a file that was there before is untouched)"
        ) from error


def read_encoder(path: str | Path, module: nn.Module | None = None) -> Encoder:
    """The encoder saved in a folder, or in a .safetensors or .json file, in evaluation mode.

    `module` is needed where the run trained a module of the user's own, and takes the weights.
    Raises UserError if anything is missing, damaged, left over or of another shape.
    """
    weights_path, description = _find(Path(path))
    if module is None and description.get("model") == "custom":
        raise UserError(f"{weights_path} holds a module of your own: pass it as `encoder`")
    try:
        if module is None:
            known = {key: description[key] for key in BUILD_DEFAULTS if key in description}
            module = build_encoder(description["model"], **known)
        size = description.get("image_size")
        encoder = Encoder(module, description["mean"], description["std"], size)
    except KeyError as error:
        raise UserError(
            f"the description of {weights_path} lacks {error}: export it again"
        ) from error
    except (TypeError, ValueError) as error:
        raise UserError(
            f"the description of {weights_path} makes no encoder ({error}): export it again"
        ) from error
    _load_strictly(encoder.module, weights_path)
    return encoder.eval()


def read_description(path: str | Path) -> dict[str, Any]:
    """What encoder.json says of the encoder at `path` (a folder or a file)."""
    return _find(Path(path))[1]


def _find(path: Path) -> tuple[Path, dict[str, Any]]:
    """The weights file and the description, from the JSON beside it or from inside the weights."""
    from safetensors import SafetensorError, safe_open

    stem = path / "encoder" if path.is_dir() else path.with_suffix("")
    weights_path = stem.with_name(stem.name + ".safetensors")
    text_path = stem.with_name(stem.name + ".json")
    if not weights_path.is_file():
        raise UserError(f"no encoder at {path}: {weights_path} does not exist")
    try:
        if text_path.is_file():
            text = text_path.read_text()
        else:
            with safe_open(weights_path, "pt") as file:
                text = (file.metadata() or {}).get("byol", "")
        description = json.loads(text)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"the description of {weights_path} cannot be read ({error})") from error
    if not isinstance(description, dict):
        raise UserError(f"the description of {weights_path} is no table: export it again")
    return weights_path, description


def _load_strictly(module: nn.Module, weights_path: Path) -> None:
    """load_state_dict that names what does not fit."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(weights_path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{weights_path} cannot be read ({error}): export it again") from error
    wanted = module.state_dict()
    for fault, names in (
        ("lacks", [name for name in wanted if name not in found]),
        ("has surplus", [name for name in found if name not in wanted]),
        (
            "has other shapes of",
            [n for n in wanted if n in found and wanted[n].shape != found[n].shape],
        ),
    ):
        if names:
            few = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
            raise UserError(
                f"{weights_path} does not fit the encoder: it {fault} {len(names)} of its tensors"
                f" ({few}); use the model that it was trained as"
            )
    module.load_state_dict(found)
