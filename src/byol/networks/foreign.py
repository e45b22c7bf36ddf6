"""Encoders of any origin: our runs and exports, timm's and torchvision's by name, files of others.

A file of others is recognised by what it holds: a torch or safetensors state dictionary with a
ResNet in it, or a checkpoint of the official release. Nothing in a file is run.
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from byol.errors import UserError
from byol.networks.encoder import BUILD_DEFAULTS, Encoder, build_encoder, feature_size
from byol.networks.external import fill, is_exported, read_description, read_encoder
from byol.networks.official import read_official
from byol.networks.statedict import describe_resnet, find_resnet, prefix_of, read_tensors, reason

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
GREY_MEAN, GREY_STD = 0.449, 0.226  # their averages, for other than three channels
NAMED = re.compile(r"(timm|torchvision):([^@]+)(?:@(.+))?")
LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc"  # the start of a torch file before torch 1.6
SEED = 0  # of `@random`


def open_encoder(
    run: str | Path, module: nn.Module | None = None, image_size: int | None = None
) -> tuple[Encoder, dict[str, Any]]:
    """An encoder in evaluation mode, and its description as in encoder.json.

    run: a run folder, a file that we exported, a checkpoint file of others, "timm:NAME" or
    "torchvision:NAME" (pretrained), "...:NAME@random" (untrained), "...:NAME@FILE". `module` takes
    the weights of a run that trained a module of the user's own. `image_size` replaces the size at
    which the encoder is used. Raises UserError for whatever does not fit.
    """
    if image_size is not None and image_size < 1:
        raise UserError(f"image_size is {image_size}; it must be 1 or more")
    path = Path(run)
    if named := NAMED.fullmatch(str(run)):
        encoder, description = _named(named[1], named[2], named[3], image_size)
    elif module is None and path.is_file() and not is_exported(path):
        encoder, description = _from_file(path)
    else:
        encoder, description = read_encoder(path, module), read_description(path)
    if image_size is not None:
        description["image_size"] = image_size
        try:
            feature_size(encoder, len(encoder.mean), image_size)
        except (AssertionError, RuntimeError, ValueError) as error:
            raise UserError(
                f"{run} cannot take images of {image_size} pixels ({reason(error)}): leave"
                " image_size out"
            ) from error
    return encoder.eval(), description


def _from_file(path: Path) -> tuple[Encoder, dict[str, Any]]:
    """The ResNet in a checkpoint of others; projector, classifier and target are left out."""
    with open(path, "rb") as file:
        start = file.read(len(LEGACY_TORCH))
    if start[:1] == b"\x80" and start != LEGACY_TORCH:
        tensors, reference, stem = read_official(path), True, {}
    else:
        every = read_tensors(path)
        found = find_resnet(every, path)
        if found is None:
            few = ", ".join(list(every)[:3]) or "no tensor at all"
            raise UserError(
                f"{path} shows no ResNet that this package knows (it holds {few} ...); if timm or"
                f" torchvision has the network, give timm:NAME@{path} or torchvision:NAME@{path}"
            )
        tensors, reference = found[0], False
        stem = _solo_learn_stem(every, found[1])
    description = {**BUILD_DEFAULTS, **describe_resnet(tensors, path), "reference": reference}
    if description["stem"] == "small":
        description |= stem
    module = build_encoder(**description)
    for name in module.state_dict():  # a count that older files do not hold, and only training uses
        if name.endswith("num_batches_tracked"):
            tensors.setdefault(name, torch.tensor(0))
    fill(module, tensors, path)
    size = 224 if description["stem"] == "large" else 32
    return _dressed(module, description, size, str(path), None, None)


def _solo_learn_stem(tensors: dict[str, Tensor], prefix: str) -> dict[str, str]:
    """solo-learn pads its 3x3 stem by 2; its files have classifier and network side by side."""
    outer = prefix.removesuffix("backbone.").removesuffix("encoder.")
    is_solo = outer != prefix and f"{outer}classifier.weight" in tensors
    return {"stem": "small-pad2"} if is_solo else {}


def _dressed(
    module: nn.Module, description: dict[str, Any], size: int, weights: str, mean: Any, std: Any
) -> tuple[Encoder, dict[str, Any]]:
    """Normalisation, and what encoder.json says of images and origin."""
    channels = description["in_chans"]
    mean = mean or (MEAN if channels == 3 else [GREY_MEAN] * channels)
    std = std or (STD if channels == 3 else [GREY_STD] * channels)
    origin = {"image_size": size, "value_range": [0, 255], "weights": weights}
    return Encoder(module, mean, std), {**description, **origin}


def _named(
    library: str, name: str, weights: str | None, image_size: int | None
) -> tuple[Encoder, dict[str, Any]]:
    """A network of timm or torchvision without its classifier, normalised as it was trained."""
    config = _timm_config(name) if library == "timm" else _torchvision_config(name)
    size = image_size or config.get("size") or 224
    description = {**BUILD_DEFAULTS, "model": f"{library}/{name}", "image_size": size}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        module = build_encoder(**description)
    if weights is None:
        found, source = _pretrained(library, name, size), f"{library}:{name}"
    elif weights != "random":
        found, source = _of_network(read_tensors(Path(weights)), module, Path(weights)), weights
    if weights != "random":
        # The classifier, which stands as an Identity in the module, has no place there.
        gone = tuple(f"{n}." for n, m in module.named_modules() if isinstance(m, nn.Identity))
        fill(module, {n: t for n, t in found.items() if not n.startswith(gone)}, source)
    origin = weights or f"{library}'s pretrained"
    return _dressed(module, description, size, origin, config.get("mean"), config.get("std"))


def _of_network(tensors: dict[str, Tensor], module: nn.Module, path: Path) -> dict[str, Tensor]:
    """The tensors of a file that belong to `module`, their prefix taken away."""
    anchor = next(iter(module.state_dict()))
    prefix = prefix_of(tensors, anchor, path)
    if prefix is None:
        raise UserError(f"{path} has no tensor {anchor}: it holds another network")
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _timm_config(name: str) -> dict[str, Any]:
    import timm

    config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    return {"size": config.input_size[-1], "mean": config.mean, "std": config.std} if config else {}


def _torchvision_config(name: str) -> dict[str, Any]:
    from torchvision import models

    if name not in models.list_models(module=models):
        return {}
    used = models.get_model_weights(name).DEFAULT.transforms()
    return {"size": used.crop_size[0], "mean": used.mean, "std": used.std}


def _pretrained(library: str, name: str, size: int) -> dict[str, Tensor]:
    """The published weights of a network, from the library's cache or the network."""
    try:
        if library == "timm":
            import timm

            config = timm.get_pretrained_cfg(name)
            options: dict[str, Any] = (
                {"img_size": size} if config and config.fixed_input_size else {}
            )
            module: nn.Module = timm.create_model(name, pretrained=True, num_classes=0, **options)
            return dict(module.state_dict())
        from torchvision import models

        return dict(models.get_model_weights(name).DEFAULT.get_state_dict(progress=False))
    except Exception as error:  # no network, no weights, no room: each library has its own errors
        raise UserError(
            f"the weights of {library}'s {name} cannot be had ({reason(error)}): connect to the"
            f" network once, or give a file, {library}:{name}@FILE, or no weights,"
            f" {library}:{name}@random"
        ) from error
