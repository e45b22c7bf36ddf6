"""State dictionaries of others: the tensors of a checkpoint file, and the ResNet among them.

Layouts differ in wrappers ({"state_dict": ...}), in prefixes (`module.`, `backbone.`,
`online_encoder.net.`) and in torchvision's children put into an nn.Sequential (lightly). All of
them show where a first residual block is.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from byol.errors import UserError
from byol.networks.resnet import BLOCKS

_SEQUENTIAL = {"0": "conv1", "1": "bn1", **{str(3 + n): f"layer{n}" for n in (1, 2, 3, 4)}}
_RENAMED: dict[str, dict[str, str]] = {  # by the first convolution of the first block
    "layer1.0.conv1.weight": {},
    "4.0.conv1.weight": {**_SEQUENTIAL, "9": "fc"},
}
_TARGET = re.compile(r"(^|[._])(target|teacher|momentum|ema|key|k)([._]|$)")
_HEAD = re.compile(r"fc|linear|logits|.*(head|classifier|project|predict).*")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a torch or safetensors file, nested names joined by dots; no code is run."""
    try:
        with open(path, "rb") as file:
            start = file.read(9)
        if start[8:] == b"{":
            from safetensors.torch import load_file

            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader fails in many ways
        if refused := re.search(r"GLOBAL (\S+)", str(error)):
            raise UserError(
                f"{path} holds an object of {refused[1]}, which may run code and is refused: save"
                " its tensors alone, torch.save(module.state_dict(), FILE)"
            ) from error
        why = f" ({reason(error)})" if isinstance(error, OSError) else ""  # else its inner matters
        raise UserError(
            f"{path} is no checkpoint that can be read{why}: give a torch, safetensors or official"
            " BYOL file"
        ) from error
    return dict(_flat(loaded, ""))


def reason(error: Exception) -> str:
    """The first line of what a library says, or the error's name."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _flat(value: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield prefix, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))


def prefix_of(tensors: Mapping[str, Tensor], anchor: str, path: Path) -> str | None:
    """What stands before `anchor` in the names of the online network; None if it is nowhere.

    Raises UserError where several networks that differ qualify, or target networks alone.
    """
    prefixes = [
        name.removesuffix(anchor)
        for name in tensors
        if name == anchor or name.endswith(f".{anchor}")
    ]
    if not prefixes:
        return None
    online = sorted((p for p in prefixes if not _TARGET.search(p)), key=len)
    if not online or any(not _same(tensors, online[0], other) for other in online[1:]):
        names = ", ".join(repr(prefix) for prefix in online or prefixes)
        raise UserError(
            f"{path} holds {'several' if online else 'only target'} networks, called {names}: save"
            " the one that you mean, torch.save(module.state_dict(), FILE)"
        )
    return online[0]


def _same(tensors: Mapping[str, Tensor], one: str, other: str) -> bool:
    """Whether two prefixes hold the same network; heads may hang on either."""
    first, second = (
        {n.removeprefix(p): t for n, t in tensors.items() if n.startswith(p)} for p in (one, other)
    )
    return all(torch.equal(first[name], second[name]) for name in first.keys() & second.keys())


def find_resnet(tensors: Mapping[str, Tensor], path: Path) -> tuple[dict[str, Tensor], str] | None:
    """The tensors of the online ResNet under torchvision's names, without heads, and their prefix.

    None where no residual block is found.
    """
    for anchor, renamed in _RENAMED.items():
        prefix = prefix_of(tensors, anchor, path)
        if prefix is None:
            continue
        found = {}
        for name, tensor in tensors.items():
            if name.startswith(prefix):
                first, _, rest = name.removeprefix(prefix).partition(".")
                first = renamed.get(first, first)
                if not _HEAD.fullmatch(first):
                    found[f"{first}.{rest}"] = tensor
        return found, prefix
    return None


def describe_resnet(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """`model`, `in_chans` and `stem` for build_encoder, from names and shapes.

    Raises UserError for what is no ResNet-18 to 200 of one width throughout.
    """
    stem = tensors.get("conv1.weight", torch.empty(0))  # (O, I, k, k)
    groups = [{n.split(".")[1] for n in tensors if n.startswith(f"layer{g}.")} for g in range(1, 5)]
    blocks = tuple(len(group) for group in groups)
    bottleneck = "layer1.0.conv3.weight" in tensors
    depths = [d for d, shape in BLOCKS.items() if shape == blocks and (d >= 50) == bottleneck]
    width = stem.shape[0] // 64
    if not depths or stem.ndim != 4 or stem.shape[-1] not in (3, 7) or not 1 <= width <= 9:
        raise UserError(
            f"{path} holds a residual network that is no ResNet-18 to 200: {blocks}"
            f" {'bottleneck' if bottleneck else 'basic'} blocks and a first convolution of"
            f" {tuple(stem.shape)}; if timm or torchvision has it, give timm:NAME@{path}"
        )
    return {
        "model": f"resnet{depths[0]}" + (f"-{width}x" if width > 1 else ""),
        "in_chans": stem.shape[1],
        "stem": "large" if stem.shape[-1] == 7 else "small",
    }
