"""Checkpoints of the official release: the same features, and nothing in them is run."""

import functools
import json
import os
import pickle
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

import byol
from byol.errors import UserError
from byol.networks.encoder import build_encoder
from byol.networks.external import fill, save_encoder
from byol.networks.foreign import MEAN, STD, open_encoder
from byol.networks.norm import DebiasedBatchNorm
from byol.networks.official import _convert
from byol.networks.resnet import ResNet
from tests.conftest import GOLDEN
from tests.haiku import export_parameters, export_state, load_haiku_, unpack
from tests.test_resnet import _seeded_tree


class _ByolExperimentState(NamedTuple):
    online_params: Any
    target_params: Any
    online_state: Any
    target_state: Any
    opt_state: Any


class ScaleByLarsState(NamedTuple):
    mu: Any


class AddWeightDecayState(NamedTuple):
    pass


class FlatMapping(dict[str, Any]):
    def __reduce__(self) -> Any:
        return FlatMapping, (dict(self),)


class Outsider(NamedTuple):
    mu: Any


Tree = dict[str, dict[str, np.ndarray]]
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4}


def _nested(flat: Mapping[str, np.ndarray]) -> Tree:
    """{"module|tensor": array} as Haiku nests it; norm vectors become (1, 1, 1, C)."""
    tree: Tree = {}
    for name, array in flat.items():
        module, tensor = name.split("|")
        is_norm = array.ndim == 1 and tensor in ("scale", "offset", "average", "hidden")
        tree.setdefault(module, {})[tensor] = array.reshape(1, 1, 1, -1) if is_norm else array
    return tree


def _checkpoint(module: nn.Module, prefix: str) -> dict[str, Any]:
    """What the official experiment saves: heads and target beside the online encoder."""
    params, state = export_parameters(module, prefix), export_state(module, prefix)
    heads = {"projector/linear": {"w": np.ones((4, 3), np.float32), "b": np.zeros(3, np.float32)}}
    averages = {"projector/batch_norm/~/mean_ema": {"average": np.ones((1, 3), np.float32)}}
    return {
        "experiment_state": _ByolExperimentState(
            FlatMapping({**_nested(params), **heads}),
            FlatMapping({f"{prefix}/~/initial_conv": {"w": np.zeros((7, 7, 3, 64))}}),
            FlatMapping({**_nested(state), **averages}),
            FlatMapping(averages),
            [AddWeightDecayState(), ScaleByLarsState(FlatMapping(heads))],
        ),
        "step": 3,
        "rng": np.zeros(2, np.uint32),
    }


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """The ResNet-18 of resnet_full.npz after its two training forwards."""
    data = np.load(GOLDEN / "resnet_full.npz")
    module = build_encoder("resnet18", reference=True)
    load_haiku_(module, _seeded_tree(data, "resnet18"), "res_net")
    with torch.no_grad():
        for k in range(2):
            module(_images(data[f"resnet18/input{k}"]))
    return module.eval()


def _images(nhwc: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(nhwc).float().permute(0, 3, 1, 2)  # (B, C, H, W)


def _plain(value: Any) -> bytes:
    """Protocol 2 by pickle itself, with the classes where Haiku and the official code have them."""
    data = pickle.dumps(value, protocol=2)
    here = __name__.encode()
    data = data.replace(b"c" + here + b"\nFlatMapping", b"chaiku._src.data_structures\nFlatMapping")
    return data.replace(b"c" + here + b"\n", b"cbyol.byol_experiment\n")


def _dilled(value: Any) -> bytes:
    """As the official code writes it: the NamedTuples by their fields, arrays by a call."""
    dill = pytest.importorskip("dill")
    here = __name__.encode()
    data: bytes = dill.dumps(value, protocol=2)
    return data.replace(b"c" + here + b"\nFlatMapping", b"chaiku._src.data_structures\nFlatMapping")


@pytest.mark.parametrize("write", [_plain, _dilled])
def test_features_of_an_official_file(
    write: Callable[[Any], bytes],
    network: nn.Module,
    golden: Callable[[str], Any],
    tmp_path: Path,
) -> None:
    """They are what the official code computed; 64 pixels, where SAME padding is not torch's."""
    path, data = tmp_path / "pretrain_res18x1.pkl", golden("resnet_full")
    path.write_bytes(write(_checkpoint(network, "res_net18")))
    encoder, description = open_encoder(path)
    assert (description["model"], description["reference"]) == ("resnet18", True)
    assert description["image_size"] == 224
    assert int(encoder.get_buffer("module.bn1.num_batches_tracked")) == 2
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    images = _images(data["resnet18/input1"]) * std + mean  # the golden ones are normalised
    expected = torch.from_numpy(data["resnet18/eval_output1"]).float()
    save_encoder(tmp_path / "encoder", encoder, description)
    with torch.no_grad():
        torch.testing.assert_close(encoder(images), expected, **CLOSE)
        torch.testing.assert_close(byol.load_encoder(tmp_path)(images), expected, **CLOSE)
    assert json.loads((tmp_path / "encoder.json").read_text())["padding"] == "same"


@pytest.mark.parametrize("case", ["bottleneck", "basic"])
def test_blocks_of_both_kinds(case: str, golden: Callable[[str], Any]) -> None:
    """Trees that Haiku wrote, parameters and averages, against what it computed with them."""
    data = golden("resnet_eval")
    tree = {
        name: array
        for kind in ("param", "state")
        for name, array in unpack(
            data[f"{case}/{kind}_names"], data[f"{case}/{kind}_shapes"], data[f"{case}/{kind}"]
        ).items()
    }
    module = ResNet(
        [int(n) for n in data[f"{case}/blocks_per_group"]],
        [int(n) for n in data[f"{case}/channels_per_group"]],
        bool(data[f"{case}/bottleneck"]),
        padding="same",
        norm=DebiasedBatchNorm,
        group0_projection=True,
    ).eval()
    fill(module, _convert(_nested(tree)), case)
    for k in range(2):
        with torch.no_grad():
            output = module(_images(data[f"{case}/input{k}"]))
        expected = torch.from_numpy(data[f"{case}/output{k}"]).float()
        torch.testing.assert_close(output, expected, **CLOSE)


def test_what_is_missing_or_surplus_is_named(network: nn.Module, tmp_path: Path) -> None:
    path, data = tmp_path / "w.pkl", _checkpoint(network, "res_net18")
    params = data["experiment_state"].online_params
    for module, arrays in params.items():  # small files
        params[module] = {name: array.astype(np.int8) for name, array in arrays.items()}
    gone = params.pop("res_net18/~/block_group_1/~/block_0/~/conv_1")
    path.write_bytes(_plain(data))
    with pytest.raises(UserError, match="lacks 1 .*layer2.0.conv2.weight"):
        open_encoder(path)
    params["res_net18/~/block_group_1/~/block_0/~/conv_1"] = gone
    params["res_net18/~/block_group_1/~/block_0/~/conv_9"] = {"w": np.ones((1, 1, 1, 1))}
    params["res_net18/~/final_batchnorm"] = {"scale": np.ones(3)}
    path.write_bytes(_plain(data))
    with pytest.raises(UserError, match="surplus 2 .*layer2.0.conv10.weight.*final_batchnorm"):
        open_encoder(path)


class _Call:
    """Asks the reader to call a function."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.reduced


MALICE: dict[str, tuple[Any, str]] = {
    "os.system": (_Call(os.system, "touch run"), r"posix.system|nt.system"),
    "eval": (_Call(eval, "open('run', 'w')"), "__builtin__.eval"),
    "getattr": (_Call(getattr, {}, "clear"), "__builtin__.getattr"),
    "import": (_Call(__import__, "antigravity"), "__import__"),
    "nested": (_Call(dict, [("a", _Call(os.system, "touch run"))]), "system|type dict"),
    "in the optimizer": (ScaleByLarsState({"w": _Call(exec, "open('run', 'w')")}), "exec"),
    "a state": (_Call(dict, state={"a": _Call(eval, "open('run', 'w')")}), "eval|type dict"),
    "objects in an array": (np.array([_Call(os.system, "touch run"), 1], object), "array of O"),
    "structured array": (np.zeros(2, [("a", "f4"), ("b", "O")]), "array of V"),
    "another NamedTuple": (Outsider(1), "Outsider"),
    "a function": (np.load, "numpy.*load"),
    "a module's class": (types.SimpleNamespace(a=1), "SimpleNamespace"),
    "partial": (_Call(functools.partial, eval, "1"), "partial|PartialType"),
}


@pytest.mark.parametrize("write", [_plain, _dilled])
@pytest.mark.parametrize("case", MALICE)
def test_what_could_run_is_refused_by_name(
    case: str, write: Callable[[Any], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    value, words = MALICE[case]
    path = tmp_path / "w.pkl"
    path.write_bytes(write({"experiment_state": value, "step": 1, "rng": None}))
    with pytest.raises(UserError, match=f"asks for .*({words}).*is refused"):
        open_encoder(path)
    assert not (tmp_path / "run").exists()


def test_other_protocols_and_handwritten_opcodes_are_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "w.pkl"
    attribute = b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.tolist\x93."  # a dotted name of protocol 4
    extension = b"\x80\x02\x82\x01."  # by number in copyreg's registry
    persistent = b"\x80\x02Pname\n."
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps({"a": _Call(os.system, "true")}, protocol))
        with pytest.raises(UserError, match="system.*is refused"):
            open_encoder(path)
    for data in (attribute, extension, persistent, b"\x80\x02}q\x00.", b"\x80\x02garbage"):
        path.write_bytes(data)
        with pytest.raises(UserError, match="refused|begins as one of the official release"):
            open_encoder(path)


def test_reading_leaves_numpy_as_it_was(tmp_path: Path) -> None:
    """An array of the other byte order must not turn the float32 of everybody else."""
    value = {"rng": np.arange(3, dtype=">f4"), "experiment_state": {}}
    (tmp_path / "w.pkl").write_bytes(_plain(value))
    with pytest.raises(UserError, match="begins as one of the official release"):
        open_encoder(tmp_path / "w.pkl")
    assert np.dtype("f4").isnative and np.zeros(1, "f4").tobytes() == bytes(4)
