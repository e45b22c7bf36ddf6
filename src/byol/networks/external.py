"""Export of an encoder, and its way back.

An encoder is exported as `encoder.safetensors`, with the key names of timm and torchvision and
nothing else in it, and `encoder.json`, which says what it is and how to load it. Reading either
runs no code.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from byol.engine.files import atomic_write
from byol.errors import UserError
from byol.networks.encoder import BUILD_DEFAULTS, CONVNET, RESNET, Encoder, bare_name, build_encoder
from byol.networks.norm import DebiasedBatchNorm
from byol.networks.standardised import StandardisedConv2d, standardise


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
        for name, tensor in _as_used(encoder.module).items()
    }
    atomic_write(path.with_name(path.name + ".safetensors"), save(weights, metadata={"byol": text}))
    readable = json.dumps(json.loads(text), indent=2) + "\n"
    atomic_write(path.with_name(path.name + ".json"), readable.encode())


def _as_used(module: nn.Module) -> dict[str, Tensor]:
    """The state with standardised weights where the network standardises them.

    Plain layers can then take them; doing it again, as our own network does, changes nothing.
    """
    state: dict[str, Tensor] = module.state_dict()
    for name, layer in module.named_modules():
        if isinstance(layer, StandardisedConv2d):
            state[f"{name}.weight"] = standardise(layer.weight)
    return state


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
        "convolution_weights": (
            "standardised over each output's inputs, as the network used them"
            if any(isinstance(layer, StandardisedConv2d) for layer in module.modules())
            else "as trained"
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
    if model == "custom" or model.startswith("torchvision/"):
        return calls
    if not (found or CONVNET.fullmatch(model)):
        size = f", img_size={d['image_size']}" if d["image_size"] and _is_fixed(model) else ""
        options = f"num_classes=0, in_chans={d['in_chans']}{size}, checkpoint_path='{file}'"
        return {**calls, "timm": f"m = timm.create_model('{bare_name(model)}', {options})"}
    if not found or found[2] not in (None, "1"):
        return {**calls, "timm": "not there", "torchvision": "not there"}
    if d["reference"]:
        why = "not there: SAME padding, and a shortcut more in group 0 of ResNet-18 and 34"
        return {**calls, "timm": why, "torchvision": why}
    if d["norm"] == "none":
        why = "not there: affine layers stand in the place of norms"
        return {**calls, "timm": why, "torchvision": why}
    groups = {"group": 32, "group-ws": 16, "layer": 1}.get(d["norm"])
    norm = f"norm_layer=lambda c: torch.nn.GroupNorm({groups}, c)" if groups else ""
    timm_norm = f", norm_layer=lambda c, **_: timm.layers.GroupNorm(c, {groups})" if groups else ""
    kernel, stride = (7, 2) if d["stem"] == "large" else (3, 1)
    pad = 2 if d["stem"] == "small-pad2" else kernel // 2
    steps = []
    if d["stem"] != "large" or d["in_chans"] != 3:
        shape = f"{d['in_chans']}, 64, {kernel}, {stride}, {pad}, bias=False"
        steps.append(f"m.conv1 = torch.nn.Conv2d({shape})")
    if d["stem"] != "large":
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


def _is_fixed(model: str) -> bool:
    import timm

    config = timm.get_pretrained_cfg(bare_name(model))
    return bool(config and config.fixed_input_size)


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


def is_exported(path: Path) -> bool:
    """Whether a file is one that save_encoder wrote, and not weights of others."""
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors":
        return path.suffix == ".json"
    if path.with_suffix(".json").is_file():
        return True
    try:
        with safe_open(path, "pt") as file:
            return "byol" in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


def read_description(path: str | Path) -> dict[str, Any]:
    """What encoder.json says of the encoder at `path` (a folder or a file)."""
    return _find(Path(path))[1]


def _find(path: Path) -> tuple[Path, dict[str, Any]]:
    """The weights file and the description, from the JSON beside it or from inside the weights."""
    from safetensors import SafetensorError, safe_open

    stem = path / "encoder" if path.is_dir() else path.with_suffix("")
    weights_path = stem.with_name(stem.name + ".safetensors")
    text_path = stem.with_name(stem.name + ".json")
    if not path.exists() and not weights_path.exists():
        raise UserError(
            f"no encoder at {path}, which does not exist: give a run folder, encoder.safetensors, a"
            " file with weights of others, timm:NAME or torchvision:NAME"
        )
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
    """Fill the module from a safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(weights_path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{weights_path} cannot be read ({error}): export it again") from error
    fill(module, found, weights_path)


def fill(module: nn.Module, found: Mapping[str, Tensor], source: str | Path) -> None:
    """load_state_dict that names what does not fit. Raises UserError."""
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
                f"{source} does not fit the encoder: it {fault} {len(names)} of its tensors"
                f" ({few}); use the model that it was trained as"
            )
    module.load_state_dict(found)
