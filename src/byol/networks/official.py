"""Checkpoints of the official release, read without running anything in them.

A file (official `byol/utils/checkpointing.py`) is a dill pickle of {experiment_state, step, rng}. A
pickle may name any function to be called. This reader makes arrays, bytes and mappings itself, and
stands in for the NamedTuples of the optimizer and the experiment; every other name is refused.
"""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from byol.errors import UserError

# NamedTuples of `byol_experiment.py`, `utils/optimizers.py` and optax, with their fields.
STATES: dict[str, tuple[str, ...]] = {
    "_ByolExperimentState": (
        "online_params", "target_params", "online_state", "target_state", "opt_state",
    ),
    "ScaleByLarsState": ("mu",),
    "AddWeightDecayState": (),
    "ScaleState": (),
    "EmptyState": (),
}  # fmt: skip
HAIKU_MAPPINGS = ("FlatMapping", "FlatMap", "frozendict")
ALIASES = {  # the same module in other versions
    "numpy.core.multiarray": "numpy._core.multiarray",
    "dill.dill": "dill._dill",
    "__builtin__": "builtins",
}


class _Record(tuple[Any, ...]):
    """A NamedTuple's values, without its methods."""

    fields: tuple[str, ...] = ()

    def __new__(cls, *values: Any) -> "_Record":
        return super().__new__(cls, values)


class _Reader(pickle.Unpickler):
    """An unpickler that knows a dozen names, and calls none of the functions they belong to."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        super().__init__(file)
        self.path = path
        self.admitted: dict[tuple[str, str], Any] = {
            ("numpy._core.multiarray", "_reconstruct"): self._empty_array,
            ("numpy._core.multiarray", "scalar"): self._scalar,
            ("numpy", "ndarray"): "ndarray",  # only ever an argument
            ("numpy", "dtype"): self._dtype,
            ("_codecs", "encode"): self._bytes,  # how protocol 2 writes bytes
            ("builtins", "bytes"): self._bytes,
            ("builtins", "dict"): dict,
            ("collections", "OrderedDict"): dict,
            ("dill._dill", "_create_array"): self._array,
            ("dill._dill", "_create_namedtuple"): self._state,
            ("dill._dill", "_load_type"): self._type,
        }

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name of the file. Raises UserError for a name that has no place."""
        if name in STATES:
            return self._state(name, STATES[name])
        if module.startswith("haiku.") and name in HAIKU_MAPPINGS:
            return dict
        known = (ALIASES.get(module, module), name)
        if known not in self.admitted:
            raise self._refusal(f"{module}.{name}")
        return self.admitted[known]

    def _refusal(self, name: str) -> UserError:
        return UserError(
            f"{self.path} asks for {name}, which no checkpoint of the official release holds and"
            " which could run anything: it is refused; only open files of a source that you trust"
        )

    def _state(self, name: str, fields: Any, *more: Any) -> type[_Record]:
        if name not in STATES:
            raise self._refusal(f"the NamedTuple {name}")
        return type(name, (_Record,), {"fields": tuple(map(str, fields))})

    def _type(self, name: str) -> Any:
        if name not in ("bytes", "BytesType"):
            raise self._refusal(f"the type {name}")
        return self._bytes

    def _bytes(self, text: str = "", coding: str = "latin1") -> bytes:
        if coding != "latin1":
            raise self._refusal(f"the coding {coding}")
        return text.encode("latin1")

    def _dtype(self, name: str, *more: Any) -> np.dtype[Any]:
        # A copy: the pickle sets its byte order, which must not reach numpy's own.
        dtype = np.dtype(str(name), False, True)
        if dtype.kind not in "biuf":
            raise self._refusal(f"an array of {name}")
        return dtype

    def _scalar(self, dtype: np.dtype[Any], data: bytes) -> Any:
        return np.frombuffer(data, dtype, 1)[0]

    def _empty_array(self, *arguments: Any) -> np.ndarray:
        return np.empty(0, np.int8)  # filled by what follows in the file, its __setstate__

    def _array(self, maker: Any, arguments: Any, state: Any, *more: Any) -> np.ndarray:
        array = self._empty_array()
        array.__setstate__(state)
        return array


def read_official(path: Path) -> dict[str, Tensor]:
    """The online encoder of an official checkpoint, under torchvision's names.

    Convolutions come as (out, in, k, k), norm tensors as (C,), the bias-corrected averages as
    running_mean and running_var. Raises UserError for damage and for names that have no place.
    """
    try:
        with open(path, "rb") as file:
            state = _Reader(file, path).load()["experiment_state"]
        parts = dict(zip(type(state).fields, state, strict=True))
        trees = (dict(parts["online_params"]), dict(parts["online_state"]))
        return _convert({name: dict(tree[name]) for tree in trees for name in tree})
    except UserError:
        raise
    except Exception as error:  # a damaged pickle fails in as many ways as there are bytes
        raise UserError(
            f"{path} is no checkpoint that can be read (it begins as one of the official release,"
            " and does not go on as one): give another file, or fetch it again"
        ) from error


_LAYER = re.compile(
    r"(?:block_group_(?P<group>\d)/~/block_(?P<block>\d+)/~/)?"
    r"(?P<kind>initial_conv|initial_batchnorm|shortcut_conv|shortcut_batchnorm|conv|batchnorm)"
    r"(?:_(?P<number>\d))?(?:/~/(?P<average>mean|var)_ema)?"
)
_TENSORS = {"w": "weight", "scale": "weight", "offset": "bias", "counter": "num_batches_tracked"}


def _convert(tree: Mapping[str, Mapping[str, Any]]) -> dict[str, Tensor]:
    """Haiku's {module: {tensor: array}} as tensors of ours, without heads and hidden sums.

    What is inside the encoder and has no name of ours keeps Haiku's, to be named as surplus.
    """
    stems = [module for module in tree if module.endswith("/~/initial_conv")]
    if len(stems) != 1:
        raise ValueError(f"{len(stems)} encoders in the online network")
    prefix = stems[0].removesuffix("initial_conv")
    tensors: dict[str, Tensor] = {}
    for module, arrays in tree.items():
        if not module.startswith(prefix) or module == prefix + "logits":
            continue
        for tensor, array in arrays.items():
            if tensor != "hidden":  # it follows from average and counter
                name = _name(module.removeprefix(prefix), tensor) or f"{module}|{tensor}"
                tensors[name] = _ours(np.asarray(array), tensor)
    return tensors


def _name(layer: str, tensor: str) -> str | None:
    """torchvision's name of Haiku's tensor; None if it has none."""
    found = _LAYER.fullmatch(layer)
    if not found or tensor not in (*_TENSORS, "average"):
        return None
    number = int(found["number"] or 0) + 1
    ours = {
        "initial_conv": "conv1", "initial_batchnorm": "bn1", "shortcut_conv": "downsample.0",
        "shortcut_batchnorm": "downsample.1", "conv": f"conv{number}", "batchnorm": f"bn{number}",
    }[found["kind"]]  # fmt: skip
    place = f"layer{int(found['group']) + 1}.{found['block']}." if found["group"] else ""
    return f"{place}{ours}.{_TENSORS.get(tensor, 'running_' + str(found['average']))}"


def _ours(array: np.ndarray, tensor: str) -> Tensor:
    if tensor == "counter":
        return torch.tensor(int(array))
    value = torch.from_numpy(array.astype(np.float32))
    # HWIO to OIHW; norm vectors are (1, 1, 1, C) there
    return value.permute(3, 2, 0, 1).contiguous() if tensor == "w" else value.flatten()
