"""Between our networks and the packed Haiku trees of tests/golden.

A tree maps names such as "res_net/~/initial_conv|w" to arrays in Haiku's layout: convolutions
HWIO, linears (in, out). What is exported are copies; norm vectors are (C,) there and (1, ..., C) in
Haiku, so compare through `pack`.
"""

import re
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn

Tree = dict[str, np.ndarray]


def unpack(names: Iterable[str], shapes: Iterable[str], flat: np.ndarray) -> Tree:
    """The tree of a flat vector; a shape is "3,3,64,4", or "" for a scalar."""
    tree: Tree = {}
    start = 0
    for name, text in zip(names, shapes, strict=True):
        shape = tuple(int(side) for side in text.split(",")) if text else ()
        size = int(np.prod(shape))
        tree[str(name)] = flat[start : start + size].reshape(shape)
        start += size
    assert start == flat.size
    return tree


def pack(names: Iterable[str], tree: Tree) -> np.ndarray:
    """The flat vector of a tree, in the order of `names`."""
    return np.concatenate([np.ravel(tree[str(name)]) for name in names])


def torso_prefix(names: Iterable[str]) -> str:
    """What the encoder is called in a tree ("res_net", "small_bottleneck", ...)."""
    stems = [str(name) for name in names if str(name).endswith("/~/initial_conv|w")]
    assert len(stems) == 1
    return stems[0].removesuffix("/~/initial_conv|w")


def load_haiku_(module: nn.Module, tree: Tree, prefix: str) -> None:
    """Fill a ResNet, an mlp or a linear classifier from the tensors of `tree` under `prefix`.

    Parameters, norm averages or both, whichever the tree holds; of the others nothing changes.
    Every tensor under the prefix must be used.
    """
    ours = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    used = set()
    for key, tensor in ours.items():
        name = haiku_name(key, prefix)
        if name in tree:
            value = torch.from_numpy(np.array(tree[name]))
            tensor.data.copy_(_ours(value, tensor))
            used.add(name)
        if key.endswith("num_batches_tracked"):
            used.add(name.replace("mean_ema", "var_ema"))  # the two counters count the same
    hidden = {name for name in tree if name.endswith("|hidden")}  # follows from the average
    wanted = {name for name in tree if re.match(re.escape(prefix) + r"[/|]", name)}
    assert used and not wanted - used - hidden, wanted - used - hidden


def export_parameters(
    module: nn.Module, prefix: str, read: Callable[[nn.Parameter], Tensor | None] = lambda p: p
) -> Tree:
    """The parameters as a tree; `read` gives something else of each (gradient, momentum).

    A `read` of None counts as zeros: Haiku knows no missing gradient.
    """
    tree: Tree = {}
    for key, parameter in module.named_parameters():
        value = read(parameter)
        value = torch.zeros_like(parameter) if value is None else value
        tree[haiku_name(key, prefix)] = _haiku(value.detach()).numpy().copy()
    return tree


def export_state(module: nn.Module, prefix: str, decay: float = 0.9) -> Tree:
    """The norm averages as a tree of `average`, `counter` and `hidden`."""
    buffers = dict(module.named_buffers())
    tree: Tree = {}
    for key, count in buffers.items():
        if not key.endswith("num_batches_tracked"):
            continue
        for kind in ("mean", "var"):
            average_key = key.replace("num_batches_tracked", f"running_{kind}")
            name = haiku_name(average_key, prefix)
            average = buffers[average_key].numpy().copy()
            tree[name] = average
            tree[name.replace("|average", "|counter")] = count.numpy().copy()
            tree[name.replace("|average", "|hidden")] = average * (1 - decay ** int(count))
    return tree


def haiku_name(key: str, prefix: str) -> str:
    """Haiku's name of one of our parameters or buffers."""
    *path, tensor = key.split(".")
    layer, is_norm = _layer(path)
    stem = f"{prefix}{layer}"
    if tensor.startswith("running_"):
        return f"{stem}/~/{tensor.removeprefix('running_')}_ema|average"
    if tensor == "num_batches_tracked":
        return f"{stem}/~/mean_ema|counter"
    haiku = {"weight": "scale", "bias": "offset"} if is_norm else {"weight": "w", "bias": "b"}
    return f"{stem}|{haiku[tensor]}"


def _layer(path: list[str]) -> tuple[str, bool]:
    """Haiku's name of a layer below the prefix, and whether it is a norm."""
    match path:
        case []:  # a classifier: one linear
            return "", False
        case [index] if index.isdigit():  # an mlp: linear, norm, ReLU, linear, ...
            group, place = divmod(int(index), 3)
            kind = ("linear", "batch_norm")[place]
            return f"/{kind}" + (f"_{group}" if group else ""), place == 1
        case ["conv1"]:
            return "/~/initial_conv", False
        case ["bn1"]:
            return "/~/initial_batchnorm", True
        case [group, block, *rest]:
            start = f"/~/block_group_{int(group.removeprefix('layer')) - 1}/~/block_{block}/~/"
            if rest[0] == "downsample":
                return start + ("shortcut_conv", "shortcut_batchnorm")[int(rest[1])], rest[1] == "1"
            kind, number = rest[0][:-1], int(rest[0][-1]) - 1
            return start + f"{'conv' if kind == 'conv' else 'batchnorm'}_{number}", kind == "bn"
    raise ValueError(f"no Haiku layer corresponds to {path}")


def _haiku(tensor: Tensor) -> Tensor:
    """Our layout to Haiku's, as far as convolutions and linears go."""
    if tensor.ndim == 4:
        return tensor.permute(2, 3, 1, 0)  # OIHW to HWIO
    return tensor.T if tensor.ndim == 2 else tensor


def _ours(value: Tensor, like: Tensor) -> Tensor:
    """Haiku's layout to ours."""
    if like.ndim == 4:
        return value.permute(3, 2, 0, 1)  # HWIO to OIHW
    return value.T if like.ndim == 2 else value.reshape(like.shape)
