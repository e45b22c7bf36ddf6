"""Weights of others: each layout gives the features of the network that it was saved from."""

import copy
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

import byol
from byol import cli
from byol.data.source import open_splits
from byol.errors import UserError
from byol.networks.encoder import build_encoder
from byol.networks.foreign import MEAN, STD, open_encoder
from byol.networks.statedict import describe_resnet
from byol.tasks.features import hold
from byol.tasks.subject import open_subject, untrained

State = dict[str, Tensor]
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}


def _network(name: str = "resnet18", small: bool = False, padding: int = 1) -> nn.Module:
    """A torchvision ResNet whose norms have seen a batch, without its classifier."""
    module: nn.Module = torchvision.models.get_model(name)
    module.set_submodule("fc", nn.Identity())
    if small:
        module.set_submodule("conv1", nn.Conv2d(3, 64, 3, 1, padding, bias=False))
        module.set_submodule("maxpool", nn.Identity())
    with torch.no_grad():
        module(torch.rand(4, 3, 40, 40))
    return module.eval()


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return _network()


@pytest.fixture(scope="module")
def other() -> nn.Module:
    torch.manual_seed(1)
    return _network()


def _under(prefix: str, module: nn.Module) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in module.state_dict().items()}


def _expected(module: nn.Module, images: Tensor) -> Tensor:
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    with torch.no_grad():
        features: Tensor = module((images - mean) / std)
    return features


def _check(path: Path, module: nn.Module, size: int = 224) -> dict[str, Any]:
    """The features of the file are those of the module; returns the description."""
    images = torch.rand(2, 3, 40, 40)
    encoder, description = open_encoder(path)
    with torch.no_grad():
        features = encoder(images)
    torch.testing.assert_close(features, _expected(module, images), **CLOSE)
    assert description["image_size"] == size
    return description


def _sequential(module: nn.Module) -> nn.Module:
    return nn.Sequential(*list(module.children())[:-1])


LAYOUTS: dict[str, Callable[[nn.Module, nn.Module], Any]] = {
    "torchvision": lambda a, b: {**_under("", a), "fc.weight": torch.rand(10, 512)},
    "without counts": lambda a, b: {n: t for n, t in _under("", a).items() if "num_" not in n},
    "parallel": lambda a, b: {"epoch": 3, "model": _under("module.", a)},
    "timm": lambda a, b: {"state_dict": _under("", a), "state_dict_ema": _under("", b)},
    "lightly": lambda a, b: {
        "epoch": 1,
        "state_dict": {
            **_under("backbone.", a),
            **_under("student_backbone.", a),
            **_under("teacher_backbone.", b),
            "projection_head.layers.0.weight": torch.rand(8, 512),
            "online_classifier.weight": torch.rand(2, 512),
        },
        "optimizer_states": [{"state": {0: {"momentum_buffer": torch.rand(3)}}}],
    },
    "lightly, sequential": lambda a, b: {
        "state_dict": {
            **_under("backbone.", _sequential(a)),
            **_under("backbone_momentum.", _sequential(b)),
            "projection_head.layers.0.weight": torch.rand(8, 512),
        }
    },
    "solo-learn": lambda a, b: {
        "state_dict": {
            **_under("backbone.", a),
            **_under("momentum_backbone.", b),
            "classifier.weight": torch.rand(10, 512),
            "projector.0.weight": torch.rand(8, 512),
        }
    },
    "byol-pytorch": lambda a, b: {
        **_under("net.", a),
        **_under("online_encoder.net.", a),
        "online_encoder.projector.0.weight": torch.rand(8, 512),
        **_under("target_encoder.net.", b),
        "online_predictor.0.weight": torch.rand(8, 8),
    },
    "two networks": lambda a, b: {
        "online_network_state_dict": _under("encoder.", _sequential(a)),
        "target_network_state_dict": _under("encoder.", _sequential(b)),
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, network: nn.Module, other: nn.Module, tmp_path: Path) -> None:
    torch.save(LAYOUTS[layout](network, other), tmp_path / "weights.ckpt")
    description = _check(tmp_path / "weights.ckpt", network)
    assert (description["model"], description["reference"]) == ("resnet18", False)


def test_old_torch_and_safetensors_files(network: nn.Module, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file(_under("module.", network), tmp_path / "plain.safetensors")
    _check(tmp_path / "old.pt", network)
    _check(tmp_path / "plain.safetensors", network)


def test_depth_is_discovered(tmp_path: Path) -> None:
    module = _network("resnet50")
    torch.save(module.state_dict(), tmp_path / "w.pth")
    assert _check(tmp_path / "w.pth", module)["model"] == "resnet50"


@pytest.mark.parametrize(
    "model", ["resnet18-3x", "resnet34", "resnet101", "resnet152-2x", "resnet200"]
)
def test_names_and_shapes_give_depth_and_width(model: str, tmp_path: Path) -> None:
    with torch.device("meta"):
        state = build_encoder(model, in_chans=5).state_dict()
    assert describe_resnet(state, tmp_path) == {"model": model, "in_chans": 5, "stem": "large"}


@pytest.mark.parametrize(("extra", "padding"), [("projector.", 1), ("classifier.", 2)])
def test_small_stems(extra: str, padding: int, tmp_path: Path) -> None:
    """solo-learn, known by its classifier beside the backbone, pads a 3x3 stem by 2."""
    module = _network(small=True, padding=padding)
    state = {**_under("backbone.", module), f"{extra}weight": torch.rand(10, 512)}
    torch.save({"state_dict": state}, tmp_path / "w.ckpt")
    _check(tmp_path / "w.ckpt", module, size=32)
    byol.convert(tmp_path / "w.ckpt", tmp_path / "ours")  # the padding travels
    _check(tmp_path / "ours", module, size=32)
    load = json.loads((tmp_path / "ours" / "encoder.json").read_text())["load"]["torchvision"]
    assert f"3, 64, 3, 1, {padding}," in load


def test_convert_is_the_command(
    network: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"model": network.state_dict()}, tmp_path / "w.pth")
    assert cli.main(["convert", str(tmp_path / "w.pth"), "--out", str(tmp_path / "new")]) == 0
    assert "encoder.safetensors" in capsys.readouterr().out
    _check(tmp_path / "new", network)
    _check(tmp_path / "new" / "encoder.safetensors", network)


def test_evaluated_and_embedded_like_a_run(network: nn.Module, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "w.pth")
    images = np.random.default_rng(0).integers(0, 256, (30, 20, 20, 3), np.uint8)
    data = (images, np.arange(30) % 2)
    words: dict[str, Any] = {"device": "cpu", "image_size": 40}
    features, _ = byol.embed(tmp_path / "w.pth", data, **words)
    encoder = byol.load_encoder(tmp_path / "w.pth")
    enlarged = hold(open_splits(data, None, None).train, 40, 3, (0, 255), 0)
    with torch.no_grad():
        expected = encoder(enlarged.images.float() / 255)
    torch.testing.assert_close(torch.from_numpy(features), expected, **CLOSE)
    result = byol.evaluate("knn", tmp_path / "w.pth", data, out=tmp_path / "e", k=3, **words)
    assert 0 <= result["rows"]["trained"]["top1"] <= 100
    written = json.loads((tmp_path / "e" / "knn.json").read_text())["encoder"]
    assert written["weights"].endswith("w.pth") and written["image_size"] == 40


def _rejected(state: Mapping[str, Any], path: Path, words: str) -> None:
    torch.save(state, path)
    with pytest.raises(UserError, match=words):
        open_encoder(path)


def test_what_does_not_fit_is_named(network: nn.Module, other: nn.Module, tmp_path: Path) -> None:
    path, state = tmp_path / "w.pth", _under("", network)
    less = {n: t for n, t in state.items() if n != "layer3.1.bn2.weight"}
    _rejected(less, path, "lacks 1 of its tensors .layer3.1.bn2.weight")
    _rejected({**state, "layer2.0.se.weight": torch.rand(1)}, path, "surplus 1.*layer2.0.se.weight")
    _rejected({**state, "layer1.0.conv1.weight": torch.rand(2, 64, 3, 3)}, path, "other shapes of")
    less = {n: t for n, t in state.items() if not n.startswith("layer4.1")}
    _rejected(less, path, r"no ResNet-18 to 200: \(2, 2, 2, 1\) basic")
    _rejected({"patch_embed.weight": torch.rand(2)}, path, "shows no ResNet.*patch_embed")
    _rejected({"a": 1}, path, "no tensor at all")
    two = {**_under("left.", network), **_under("right.", other)}
    _rejected(two, path, "several networks, called 'left.', 'right.'")
    _rejected(_under("momentum_encoder.", network), path, "only target networks")


def test_files_that_run_code_or_are_none(tmp_path: Path) -> None:
    path = tmp_path / "w.ckpt"
    _rejected({"state_dict": {}, "hyper_parameters": Path("x")}, path, "object of pathlib")
    for content in (b"", b"nonsense", b"PK\x03\x04 half", b"\x80\x02}q\x00.", b"\x80)0)00."):
        path.write_bytes(content)
        with pytest.raises(UserError, match="no checkpoint that can be read") as caught:
            open_encoder(path)
        assert not re.search("pop from|weights_only|Error", str(caught.value))
    with pytest.raises(UserError, match="no encoder at"):
        open_encoder(tmp_path / "nowhere.pth")
    with pytest.raises(UserError, match="no checkpoint that can be read"):
        open_encoder(f"timm:resnet18@{tmp_path / 'nowhere.pth'}")


def test_untrained_networks_by_name() -> None:
    images = torch.rand(2, 3, 64, 64)
    for name, features in (("timm:mobilenetv3_small_050", 1024), ("torchvision:resnet18", 512)):
        subject = open_subject(f"{name}@random", device="cpu", image_size=64)
        assert subject.encoder(images).shape == (2, features)
        assert subject.geometry == (64, 3, (0, 255))
        again = open_subject(f"{name}@random", device="cpu", image_size=64)
        assert torch.equal(again.encoder(images), subject.encoder(images))
        assert not torch.equal(untrained(subject, 5).encoder(images), subject.encoder(images))
    vit = open_subject("timm:vit_tiny_patch16_224@random", device="cpu", image_size=32)
    assert vit.encoder(images[..., :32, :32]).shape == (2, 192)


def test_names_with_a_file(tmp_path: Path) -> None:
    """Any network of timm or torchvision, with the classifier that it was trained with."""
    import timm

    module: nn.Module = timm.create_model("vit_tiny_patch16_224", num_classes=7).eval()
    torch.save({"state_dict": _under("module.", module)}, tmp_path / "vit.pth")
    encoder, _ = open_encoder(f"timm:vit_tiny_patch16_224@{tmp_path / 'vit.pth'}")
    images = torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        headless = copy.deepcopy(module)
        headless.reset_classifier(0)  # type: ignore[operator]
        expected = headless((images - 0.5) / 0.5)  # timm trained this one with 0.5
        torch.testing.assert_close(encoder(images), expected, **CLOSE)
    wide = torchvision.models.mobilenet_v3_small(num_classes=7).eval()
    torch.save(wide.state_dict(), tmp_path / "m.pth")
    encoder, _ = open_encoder(f"torchvision:mobilenet_v3_small@{tmp_path / 'm.pth'}")
    wide.classifier[-1] = nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(encoder(images), _expected(wide, images), **CLOSE)
    byol.convert(f"torchvision:mobilenet_v3_small@{tmp_path / 'm.pth'}", tmp_path / "ours")
    with torch.no_grad():
        torch.testing.assert_close(byol.load_encoder(tmp_path / "ours")(images), encoder(images))
    torch.save(
        {k: v for k, v in wide.state_dict().items() if "features.3" not in k}, tmp_path / "m"
    )
    with pytest.raises(UserError, match="lacks .* features.3"):
        open_encoder(f"torchvision:mobilenet_v3_small@{tmp_path / 'm'}")


def test_pretrained_weights(monkeypatch: pytest.MonkeyPatch, network: nn.Module) -> None:
    """What the library hands out is what the encoder holds; without a network, one sentence."""
    import timm
    from torchvision.models import ResNet18_Weights

    def handed_out(self: Any, **options: Any) -> State:
        return {**network.state_dict(), "fc.weight": torch.rand(2), "fc.bias": torch.rand(2)}

    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", handed_out)
    images = torch.rand(2, 3, 40, 40)
    encoder, description = open_encoder("torchvision:resnet18")
    with torch.no_grad():
        torch.testing.assert_close(encoder(images), _expected(network, images), **CLOSE)
    assert description["image_size"] == 224

    def offline(*arguments: Any, **options: Any) -> State:
        raise OSError("no route to host")

    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", offline)
    monkeypatch.setattr(timm.models._builder, "load_pretrained", offline)
    for name in ("torchvision:resnet18", "timm:resnet18"):
        with pytest.raises(UserError, match="cannot be had .no route to host.: .*@random"):
            open_encoder(name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm:resnet51", "unknown model 'resnet51'"),
        ("torchvision:resnet51", "unknown model 'resnet51'.*resnet50"),
        ("torchvision:squeezenet1_0@random", "no linear layer"),
        ("torchvision:resnet18@random", "image_size is 0"),
    ],
)
def test_names_that_cannot_be(name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        open_encoder(name, image_size=0 if "image_size" in words else None)


def test_an_image_size_that_cannot_be() -> None:
    with pytest.raises(UserError, match="no multiple|cannot take images"):
        open_encoder("timm:vit_tiny_patch16_224@random", image_size=30)
