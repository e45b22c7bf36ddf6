"""Encoders by name, their export and their way back."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from byol.errors import UserError
from byol.networks.encoder import (
    BUILD_DEFAULTS,
    Encoder,
    build_encoder,
    count_parameters,
    feature_size,
)
from byol.networks.external import read_encoder, save_encoder
from byol.networks.norm import DebiasedBatchNorm

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _encoder(**options: Any) -> Encoder:
    """An encoder whose averages have seen a batch."""
    channels = options.get("in_chans", 3)
    encoder = Encoder(build_encoder(**options), MEAN[:1] * channels, STD[:1] * channels)
    with torch.no_grad():
        encoder(torch.rand(8, channels, 32, 32))
    return encoder.eval()


def test_names_of_our_own() -> None:
    assert count_parameters(build_encoder("resnet18")) == 11_176_512
    assert count_parameters(build_encoder("resnet18", reference=True)) == 11_180_736
    with torch.device("meta"):
        assert count_parameters(build_encoder("resnet50-2x")) == 93_907_072
    assert build_encoder("convnet-32").num_features == 256


def test_reference_is_official() -> None:
    module = build_encoder("resnet50", reference=True, zero_gamma=True)
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert len(norms) == 53 and all(isinstance(norm, DebiasedBatchNorm) for norm in norms)
    assert module.padding == "same"
    weight = module.get_parameter("layer3.0.conv2.weight")
    assert abs(weight.std().item() * (256 * 9) ** 0.5 - 0.87963) < 0.005
    assert not module.get_parameter("layer1.0.bn3.weight").any()
    basic = build_encoder("resnet18", reference=True, zero_gamma=True)
    assert basic.get_parameter("layer1.0.bn2.weight").all()  # the official basic block stays at 1


def test_prefix_asks_for_timm() -> None:
    import timm

    module = build_encoder("timm/resnet18", image_size=32)
    assert isinstance(module, timm.models.resnet.ResNet)
    assert not isinstance(build_encoder("resnet18"), timm.models.resnet.ResNet)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "resnet51"}, r"unknown model 'resnet51': .*resnet50, (?!resnet50)"),
        ({"model": "resnet50-20x"}, "unknown model"),
        ({"model": "hf-hub:someone/something"}, "unknown model"),
        ({"model": "timm/nonsense"}, "unknown model 'nonsense'"),
        ({"model": "timm/resnet18", "stem": "small"}, "stem 'small'"),
        ({"model": "convnet", "stem": "small"}, "stem 'small'"),
        ({"model": "convnet", "zero_gamma": True}, "zero_gamma"),
        ({"model": "resnet18", "stem": "tiny"}, "unknown stem 'tiny'.*large, small"),
        ({"model": "resnet18", "norm": "instance"}, "unknown norm 'instance'"),
        ({"model": "resnet18", "norm": "none", "reference": True}, "batch norm"),
        ({"model": "vit_tiny_patch16_224", "norm_images": 8}, "norm_images.*norms of its own"),
        ({"model": "resnet18", "norm": "group", "reference": True}, "batch norm"),
        ({"model": "vit_tiny_patch16_224", "norm": "group"}, "norms of its own"),
        ({"model": "resnet18", "in_chans": 0}, "at least 1 input channel"),
        ({"model": "vit_tiny_patch16_224", "image_size": 30}, "patches of 16 pixels"),
        ({"model": "inception_next_atto", "image_size": 16}, "cannot take images .* 16 x 16"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        build_encoder(**options)


def test_normalisation_is_the_first_step() -> None:
    class Mean(nn.Module):
        num_features = 3

        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3))

    encoder = Encoder(Mean(), MEAN, STD)
    images = torch.tensor(MEAN)[None, :, None, None].expand(2, 3, 4, 4)
    torch.testing.assert_close(encoder(images), torch.zeros(2, 3))
    white = (1 - torch.tensor(MEAN)) / torch.tensor(STD)
    torch.testing.assert_close(encoder(torch.ones(2, 3, 4, 4)), white.expand(2, 3))
    assert set(encoder.state_dict()) == {"mean", "std"}


def test_feature_size_is_found_without_a_trace() -> None:
    module = nn.Sequential(
        nn.Conv2d(2, 7, 3), nn.BatchNorm2d(7), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )  # fmt: skip
    module[2].eval()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    modes, random = [m.training for m in module.modules()], torch.random.get_rng_state()
    assert Encoder(module, [0.5, 0.5], [0.2, 0.2], image_size=8).num_features == 7
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert [m.training for m in module.modules()] == modes
    assert torch.equal(torch.random.get_rng_state(), random)
    with pytest.raises(UserError, match="pool over space"):
        feature_size(nn.Conv2d(2, 7, 3), 2, 8)


def test_a_classifier_that_was_left_on_counts_as_it_is() -> None:
    import timm

    module = timm.create_model("resnet18", num_classes=10)
    assert module.num_features == 512
    assert Encoder(module, MEAN, STD, image_size=32).num_features == 10


EXPORTED = [
    {"model": "resnet18"},
    {"model": "resnet18", "stem": "small", "in_chans": 1},
    {"model": "resnet18", "norm": "group"},
    {"model": "resnet18", "norm": "layer"},
    {"model": "convnet", "norm": "none"},
    {"model": "convnet", "norm_images": 4},
    {"model": "resnet18", "reference": True},
    {"model": "convnet", "reference": True},
    {"model": "convnet-8", "norm": "group"},
    {"model": "timm/resnet18", "in_chans": 4},
    {"model": "vit_tiny_patch16_224", "image_size": 32},
]


@pytest.mark.parametrize("options", EXPORTED, ids=lambda o: "-".join(map(str, o.values())))
def test_round_trip(options: dict[str, Any], tmp_path: Path) -> None:
    encoder = _encoder(**options)
    save_encoder(tmp_path / "encoder", encoder, {**options, "value_range": [0, 255]})
    assert sorted(os.listdir(tmp_path)) == ["encoder.json", "encoder.safetensors"]
    images = torch.rand(2, options.get("in_chans", 3), 32, 32)
    expected = encoder(images)
    description = json.loads((tmp_path / "encoder.json").read_text())
    assert description["network"] == "online" and description["value_range"] == [0, 255]
    assert description["num_features"] == expected.shape[1]
    assert description["mean"] == list(MEAN[:1] * options.get("in_chans", 3))
    assert set(BUILD_DEFAULTS) <= set(description)
    for path in ("", "encoder.json", "encoder.safetensors"):
        read = read_encoder(tmp_path / path)
        assert not read.training and torch.equal(read(images), expected)
    (tmp_path / "encoder.json").unlink()  # the weights know what they are
    assert torch.equal(read_encoder(tmp_path / "encoder.safetensors")(images), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"model": "resnet18"},
        {"model": "resnet50"},
        {"model": "resnet18", "in_chans": 5},
        {"model": "resnet18", "stem": "small"},
        {"model": "resnet18", "norm": "group"},
        {"model": "resnet18", "norm": "group-ws"},
        {"model": "resnet18", "norm": "layer"},
        {"model": "resnet18", "norm_images": 4},
        {"model": "timm/resnet18", "in_chans": 4},
        {"model": "vit_tiny_patch16_224", "image_size": 32},
    ],
    ids=lambda o: "-".join(map(str, o.values())),
)
def test_the_documented_calls_work(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm
    import torchvision

    encoder = _encoder(**options)
    save_encoder(tmp_path / "encoder", encoder, options)
    monkeypatch.chdir(tmp_path)
    calls = json.loads((tmp_path / "encoder.json").read_text())["load"]
    x = torch.rand(2, options.get("in_chans", 3), 32, 32)
    others = [calls[library] for library in ("timm", "torchvision") if library in calls]
    assert len(others) == (2 if options["model"].startswith("resnet") else 1)
    for call in others:
        scope: dict[str, Any] = {
            "torch": torch, "timm": timm, "torchvision": torchvision, "safetensors": safetensors,
        }  # fmt: skip
        exec(call, scope)
        output = scope["m"].eval()(x)
        torch.testing.assert_close(output, encoder.module(x), rtol=1e-4, atol=1e-5)


def test_reference_norm_is_exported_as_plain_averages(tmp_path: Path) -> None:
    encoder = _encoder(model="convnet", reference=True)
    save_encoder(tmp_path / "encoder", encoder, {"model": "convnet", "reference": True})
    weights = safetensors.torch.load_file(tmp_path / "encoder.safetensors")
    assert {"layers.0.1.running_mean", "layers.0.1.running_var"} <= set(weights)
    plain = build_encoder("convnet")
    plain.load_state_dict(weights, strict=True)
    assert (
        "bias-corrected"
        in json.loads((tmp_path / "encoder.json").read_text())["batch_norm_averages"]
    )
    assert json.loads((tmp_path / "encoder.json").read_text())["padding"] == "same"


def test_a_module_of_ones_own(tmp_path: Path) -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    encoder = Encoder(build(), MEAN, STD, image_size=16)
    save_encoder(tmp_path / "encoder", encoder, {"model": "custom", "image_size": 16})
    with pytest.raises(UserError, match="a module of your own"):
        read_encoder(tmp_path)
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(read_encoder(tmp_path, build())(images), encoder(images))
    with pytest.raises(UserError, match="lacks 2 of its tensors .*3.weight"):
        read_encoder(tmp_path, nn.Sequential(*build().children(), nn.Linear(6, 2)))


def _rewrite(folder: Path, weights: Mapping[str, Tensor]) -> None:
    safetensors.torch.save_file(dict(weights), folder / "encoder.safetensors")


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    save_encoder(tmp_path / "encoder", _encoder(model="convnet"), {"model": "convnet"})
    weights = safetensors.torch.load_file(tmp_path / "encoder.safetensors")
    _rewrite(tmp_path, {k: v for k, v in weights.items() if k != "layers.0.0.weight"})
    with pytest.raises(UserError, match="lacks 1 of its tensors .layers.0.0.weight"):
        read_encoder(tmp_path)
    _rewrite(tmp_path, {**weights, "fc.weight": torch.zeros(2)})
    with pytest.raises(UserError, match="surplus 1 of its tensors .fc.weight"):
        read_encoder(tmp_path)
    _rewrite(tmp_path, {**weights, "layers.0.0.weight": torch.zeros(2)})
    with pytest.raises(UserError, match="other shapes of 1"):
        read_encoder(tmp_path)


def test_damage_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no encoder at"):
        read_encoder(tmp_path)
    save_encoder(tmp_path / "encoder", _encoder(model="convnet"), {"model": "convnet"})
    whole = (tmp_path / "encoder.safetensors").read_bytes()
    (tmp_path / "encoder.safetensors").write_bytes(whole[:1000])
    with pytest.raises(UserError, match="cannot be read"):
        read_encoder(tmp_path)
    (tmp_path / "encoder.safetensors").write_bytes(whole)
    for text, words in (
        ("{", "cannot be read"),
        ("[]", "no table"),
        ("{}", "lacks 'model'"),
        ('{"model": 5}', "no encoder"),
    ):
        (tmp_path / "encoder.json").write_text(text)
        with pytest.raises(UserError, match=words):
            read_encoder(tmp_path)


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = _encoder(model="convnet")
    save_encoder(tmp_path / "encoder", encoder, {"model": "convnet"})
    before = (tmp_path / "encoder.safetensors").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="the disk is full"):
        save_encoder(tmp_path / "encoder", encoder, {"model": "convnet"})
    assert sorted(os.listdir(tmp_path)) == ["encoder.json", "encoder.safetensors"]
    assert (tmp_path / "encoder.safetensors").read_bytes() == before


def test_the_same_encoder_gives_the_same_bytes(tmp_path: Path) -> None:
    encoder = _encoder(model="convnet")
    for name in ("a", "b"):
        save_encoder(tmp_path / name, encoder, {"model": "convnet"})
        encoder.to(memory_format=torch.channels_last)
    files = [(tmp_path / f"{name}.safetensors").read_bytes() for name in ("a", "b")]
    assert files[0] == files[1]


def test_standardised_weights_are_exported_as_they_are_used(tmp_path: Path) -> None:
    """So that plain layers can take them; standardising them again changes nothing."""
    encoder = _encoder(model="convnet", norm="group-ws")
    save_encoder(tmp_path / "encoder", encoder, {"model": "convnet", "norm": "group-ws"})
    said = json.loads((tmp_path / "encoder.json").read_text())["convolution_weights"]
    assert said.startswith("standardised")
    images = torch.rand(2, 3, 32, 32)
    read = read_encoder(tmp_path)
    torch.testing.assert_close(read(images), encoder(images), rtol=1e-5, atol=1e-6)
    save_encoder(tmp_path / "again", read, {"model": "convnet", "norm": "group-ws"})
    weights = [
        safetensors.torch.load_file(tmp_path / f"{n}.safetensors") for n in ("encoder", "again")
    ]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-5, atol=1e-6)
        if weight.ndim == 4:
            assert weight.flatten(1).std(1, correction=0).sub(1).abs().max() < 1e-4


def test_an_encoder_of_before_group_statistics_is_still_read(tmp_path: Path) -> None:
    encoder = _encoder(model="convnet")
    save_encoder(tmp_path / "encoder", encoder, {"model": "convnet"})
    description = json.loads((tmp_path / "encoder.json").read_text())
    del description["norm_images"], description["convolution_weights"]
    (tmp_path / "encoder.json").write_text(json.dumps(description))
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(read_encoder(tmp_path)(images), encoder(images))
