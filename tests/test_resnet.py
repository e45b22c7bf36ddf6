"""The ResNets against the official code, torchvision and timm."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from byol.networks.encoder import build_encoder, count_parameters
from byol.networks.heads import mlp
from byol.networks.norm import DebiasedBatchNorm
from byol.networks.resnet import Bottleneck, ResNet, SameConv2d, resnet
from tests.conftest import GOLDEN
from tests.haiku import (
    Tree,
    export_parameters,
    export_state,
    haiku_name,
    load_haiku_,
    pack,
    torso_prefix,
    unpack,
)

CLOSE: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-10}
OFFICIAL: dict[str, Any] = {
    "padding": "same", "norm": DebiasedBatchNorm, "group0_projection": True,
}  # fmt: skip


def _images(nhwc: np.ndarray) -> Tensor:
    return torch.from_numpy(nhwc).permute(0, 3, 1, 2)  # (B, C, H, W)


def _golden_torso(data: Any, case: str) -> tuple[ResNet, Tree]:
    tree = unpack(data[f"{case}/param_names"], data[f"{case}/param_shapes"], data[f"{case}/param"])
    torso = ResNet(
        data[f"{case}/blocks_per_group"].tolist(),
        data[f"{case}/channels_per_group"].tolist(),
        bool(data[f"{case}/bottleneck"]),
        **OFFICIAL,
    ).double()
    load_haiku_(torso, tree, torso_prefix(tree))
    return torso, tree


@pytest.mark.parametrize("case", ["bottleneck", "basic"])
def test_official_training_forwards_and_states(case: str, golden: Callable[[str], Any]) -> None:
    data = golden("resnet_train")
    torso, _ = _golden_torso(data, case)
    names = data[f"{case}/state_names"]
    before = unpack(names, data[f"{case}/state_shapes"], data[f"{case}/state_before"])
    load_haiku_(torso, before, "res_net")
    for t in range(int(data[f"{case}/forwards"])):
        output = torso(_images(data[f"{case}/forward{t}/input"]))
        np.testing.assert_allclose(
            output.detach().numpy(), data[f"{case}/forward{t}/output"], **CLOSE
        )
        state = pack(names, export_state(torso, "res_net"))
        np.testing.assert_allclose(state, data[f"{case}/forward{t}/state_after"], **CLOSE)


@pytest.mark.parametrize("case", ["bottleneck", "basic"])
def test_official_gradients(case: str, golden: Callable[[str], Any]) -> None:
    data = golden("resnet_train")
    torso, _ = _golden_torso(data, case)
    x = _images(data[f"{case}/forward0/input"]).requires_grad_()
    (torso(x) * torch.from_numpy(data[f"{case}/grad/cotangent"])).sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(
        x.grad.permute(0, 2, 3, 1).numpy(), data[f"{case}/grad/input"], **CLOSE
    )
    gradient = pack(
        data[f"{case}/param_names"], export_parameters(torso, "res_net", lambda p: p.grad)
    )
    np.testing.assert_allclose(gradient, data[f"{case}/grad/param"], **CLOSE)


@pytest.mark.parametrize("case", ["bottleneck", "basic"])
def test_official_evaluation(case: str, golden: Callable[[str], Any]) -> None:
    data = golden("resnet_eval")
    torso, _ = _golden_torso(data, case)
    names, flat = data[f"{case}/state_names"], data[f"{case}/state"]
    load_haiku_(torso, unpack(names, data[f"{case}/state_shapes"], flat), "res_net")
    loaded = pack(names, export_state(torso, "res_net"))
    np.testing.assert_allclose(loaded, flat, **CLOSE)
    torso.eval()
    for k in range(2):
        output = torso(_images(data[f"{case}/input{k}"]))
        np.testing.assert_allclose(output.detach().numpy(), data[f"{case}/output{k}"], **CLOSE)
    np.testing.assert_array_equal(pack(names, export_state(torso, "res_net")), loaded)


@pytest.mark.parametrize("case", ["A", "B"])
@pytest.mark.parametrize("which", ["online", "target"])
def test_whole_trees_go_in_and_come_out(
    case: str, which: str, golden: Callable[[str], Any]
) -> None:
    data = golden("trajectory")
    names, states = data[f"{case}/param_names"], data[f"{case}/state_names"]
    tree = unpack(names, data[f"{case}/param_shapes"], data[f"{case}/init/{which}"])
    last = int(data[f"{case}/config/steps"]) - 1
    flat = data[f"{case}/step{last}/{which}_state"]
    tree |= unpack(states, data[f"{case}/state_shapes"], flat)
    config = {key: data[f"{case}/config/{key}"] for key in ("blocks_per_group", "bottleneck")}
    channels = data[f"{case}/config/channels_per_group"].tolist()
    classes = int(data[f"{case}/config/num_classes"])
    torso = ResNet(
        config["blocks_per_group"].tolist(), channels, bool(config["bottleneck"]), **OFFICIAL
    )
    size, hidden = (int(data[f"{case}/config/projector_{k}_size"]) for k in ("output", "hidden"))
    modules = {
        torso_prefix(names): torso,
        "projector": mlp(channels[-1], hidden, size, norm=DebiasedBatchNorm),
        "predictor": mlp(
            size, int(data[f"{case}/config/predictor_hidden_size"]), size, norm=DebiasedBatchNorm
        ),
        "classifier": nn.Linear(channels[-1], classes),
    }
    out, averages = Tree(), Tree()
    for prefix, module in modules.items():
        load_haiku_(module.double(), tree, prefix)
        out |= export_parameters(module, prefix)
        averages |= export_state(module, prefix)
    np.testing.assert_array_equal(pack(names, out), data[f"{case}/init/{which}"])
    np.testing.assert_allclose(pack(states, averages), flat, rtol=1e-12)


def _seeded_tree(data: Any, name: str) -> Tree:
    """The parameters of resnet_full.npz, drawn from its seed."""
    draws = np.random.RandomState(int(data["seed"]))
    tree: Tree = {}
    names, shapes = data[f"{name}/param_names"], data[f"{name}/param_shapes"]
    for full, text, check in zip(names, shapes, data[f"{name}/param_check"], strict=True):
        shape = tuple(int(side) for side in text.split(","))
        z = draws.standard_normal(shape)
        match full.split("|")[1]:
            case "scale":
                value = 1 + 0.2 * z
            case "offset":
                value = 0.1 * z
            case _:
                value = z * np.sqrt(2 / np.prod(shape[:-1]))
        np.testing.assert_allclose((value.flat[0], value.sum()), check, rtol=1e-8, atol=1e-9)
        tree[str(full)] = value
    return tree


@pytest.mark.parametrize("depth", [18, 50])
def test_official_full_networks(depth: int, golden: Callable[[str], Any]) -> None:
    data, name = golden("resnet_full"), f"resnet{depth}"
    network = resnet(depth, **OFFICIAL).double()
    load_haiku_(network, _seeded_tree(data, name), "res_net")
    close: dict[str, Any] = {"rtol": 1e-8, "atol": 1e-10}
    images = [_images(data[f"{name}/input{k}"].astype(np.float64)) for k in range(2)]
    with torch.no_grad():
        for k in range(2):
            np.testing.assert_allclose(
                network(images[k]).numpy(), data[f"{name}/train_output{k}"], **close
            )
        np.testing.assert_allclose(
            network.eval()(images[1]).numpy(), data[f"{name}/eval_output1"], **close
        )
    state = export_state(network, "res_net")
    sums = [state[f"{full}|average"].sum() for full in data[f"{name}/state_names"]]
    np.testing.assert_allclose(sums, data[f"{name}/state_average_sum"], **close)


def test_official_parameter_counts() -> None:
    with torch.device("meta"):
        counts = json.loads((GOLDEN / "param_count.json").read_text())
        for name, expected in counts["encoder"].items():
            depth, width = name.removeprefix("resnet").removesuffix("x").split("_")
            network = resnet(int(depth), int(width), group0_projection=True)
            assert count_parameters(network) == expected["parameters"]
            assert network.num_features == expected["feature_dim"]
            assert len(list(network.parameters())) == expected["tensors"]
            averages = [b.numel() for n, b in network.named_buffers() if "running" in n]
            assert sum(averages) == expected["running_mean_and_variance_values"]


def test_official_tensor_shapes() -> None:
    counts = json.loads((GOLDEN / "param_count.json").read_text())
    for name, shapes in counts["shapes"].items():
        depth, width = name.removeprefix("resnet").removesuffix("x").split("_")
        with torch.device("meta"):
            network = resnet(int(depth), int(width), group0_projection=True)
        ours = {}
        for key, parameter in network.named_parameters():
            full = haiku_name(key, f"res_net{depth}")
            is_norm = parameter.ndim == 1
            shape = (1, 1, 1, -1) if is_norm else parameter.permute(2, 3, 1, 0).shape  # HWIO
            ours[full] = list(parameter.reshape(shape).shape)
        assert ours == shapes


@pytest.mark.parametrize(
    ("depth", "width", "count"),
    [
        (18, 1, 11_176_512), (18, 3, 100_474_560), (34, 1, 21_284_672), (50, 3, 211_197_120),
        (101, 3, 381_812_928), (152, 3, 522_329_280), (200, 3, 562_511_040),
    ],
)  # fmt: skip
def test_parameter_counts_with_torchvisions_shortcuts(depth: int, width: int, count: int) -> None:
    with torch.device("meta"):
        assert count_parameters(resnet(depth, width)) == count


@pytest.mark.parametrize("depth", [18, 50])
def test_weights_load_strictly_into_torchvision_and_timm(depth: int) -> None:
    import timm
    import torchvision

    network = resnet(depth)
    x = torch.rand(4, 3, 64, 64)
    network(x)  # so that the averages are not the initial ones
    theirs = torchvision.models.get_model(f"resnet{depth}", weights=None)
    theirs.fc = nn.Identity()
    expected = network.eval()(x)
    assert expected.shape == (4, network.num_features) and expected.std() > 0
    for other in (theirs, timm.create_model(f"resnet{depth}", num_classes=0)):
        other.load_state_dict(network.state_dict(), strict=True)
        torch.testing.assert_close(other.eval()(x), expected, rtol=1e-4, atol=1e-5)


def test_initialisation_is_torchvisions() -> None:
    network = resnet(18)
    weight = network.get_parameter("layer3.0.conv2.weight")
    assert abs(weight.std().item() / (2 / (256 * 9)) ** 0.5 - 1) < 0.01


@pytest.mark.parametrize("depth", [18, 50])
def test_zero_gamma_makes_each_block_its_shortcut(depth: int) -> None:
    last = "bn3.weight" if depth == 50 else "bn2.weight"
    with torch.no_grad():
        network = resnet(depth, zero_gamma=True)
    zero = {name for name, p in network.named_parameters() if not p.any() and "weight" in name}
    expected = {
        name for name, _ in network.named_parameters() if name.endswith(last) and "layer" in name
    }
    assert zero == expected
    block = network.layer1[1]
    x = torch.rand(2, 256 if isinstance(block, Bottleneck) else 64, 8, 8)
    torch.testing.assert_close(block(x), x)


@pytest.mark.parametrize("asked", ["identity", "true", True, "false", False])
def test_zero_gamma_of_identity_shortcuts_alone(asked: Any) -> None:
    network = build_encoder("resnet18", zero_gamma=asked)
    zero = {name for name, p in network.named_parameters() if not p.any() and "weight" in name}
    of_all = {f"layer{group}.{block}.bn2.weight" for group in (1, 2, 3, 4) for block in (0, 1)}
    convolved = {f"layer{group}.0.bn2.weight" for group in (2, 3, 4)}
    expected = {"identity": of_all - convolved, "true": of_all, "false": set()}
    assert zero == expected[str(asked).lower()]


@pytest.mark.parametrize("side", [1, 2, 7, 8, 9, 14])
@pytest.mark.parametrize("kernel", [3, 7])
def test_same_padding_places_windows_as_tensorflow(side: int, kernel: int) -> None:
    conv = SameConv2d(1, 1, kernel, 2, bias=False)
    x = torch.rand(1, 1, side, side + 1)
    out = conv(x)
    assert out.shape[2:] == (-(-side // 2), -(-(side + 1) // 2))
    before = max((out.shape[2] - 1) * 2 + kernel - side, 0) // 2
    before_w = max((out.shape[3] - 1) * 2 + kernel - side - 1, 0) // 2
    wide = F.pad(x, (kernel, kernel, kernel, kernel))
    top, left = kernel - before, kernel - before_w
    corner = (wide[0, 0, top : top + kernel, left : left + kernel] * conv.weight[0, 0]).sum()
    torch.testing.assert_close(out[0, 0, 0, 0], corner)


@pytest.mark.parametrize("padding", ["torch", "same"])
def test_small_stem_keeps_resolution(padding: str) -> None:
    network = resnet(18, stem="small", padding=padding, in_chans=1)
    assert network.forward_features(torch.rand(2, 1, 32, 32)).shape == (2, 512, 4, 4)
    assert network.conv1.weight.shape == (64, 1, 3, 3)


@pytest.mark.parametrize("options", [{}, OFFICIAL], ids=["torch", "official"])
def test_channels_last_and_autocast(options: dict[str, Any]) -> None:
    network = ResNet([1, 1, 1, 1], [16, 16, 32, 32], True, **options)
    x = torch.rand(4, 3, 40, 40)
    expected = network(x)
    last = network.to(memory_format=torch.channels_last)
    images = x.to(memory_format=torch.channels_last)
    torch.testing.assert_close(last(images), expected, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        features = last(images)
        assert features.dtype == torch.bfloat16
    features.float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in last.parameters())
    torch.testing.assert_close(features.float(), expected, rtol=0.1, atol=0.1)
