"""What holds for every encoder, ours and timm's."""

from typing import Any

import pytest
import torch

from byol.networks.encoder import Encoder, build_encoder

ENCODERS: list[tuple[str, dict[str, Any]]] = [
    ("resnet18", {}),
    ("resnet18", {"stem": "small", "reference": True}),
    ("resnet50", {"reference": True, "zero_gamma": True}),
    ("resnet18", {"norm": "group"}),
    ("resnet18", {"norm": "group-ws"}),
    ("resnet18", {"norm": "layer"}),
    ("convnet", {"norm": "none"}),
    ("convnet", {"norm_images": 2}),
    ("convnet", {}),
    ("convnet", {"reference": True}),
    ("timm/resnet18", {}),
    ("mobilenetv3_small_050", {}),
    ("convnext_atto", {}),
    ("vit_tiny_patch16_224", {}),
    ("vit_tiny_patch16_224", {"reference": True}),
    ("swin_tiny_patch4_window7_224", {}),
]


@pytest.mark.parametrize(("model", "options"), ENCODERS, ids=lambda value: str(value))
def test_features(model: str, options: dict[str, Any]) -> None:
    for channels in (1, 3, 13):
        module = build_encoder(model, channels, image_size=32, **options)
        encoder = Encoder(module, [0.5] * channels, [0.25] * channels)
        images = torch.rand(4, channels, 32, 32)
        features = encoder(images)
        assert features.shape == (4, encoder.num_features)
        assert features.isfinite().all()
        features.square().sum().backward()
        missing = [n for n, p in encoder.named_parameters() if p.grad is None]
        assert not missing


@pytest.mark.parametrize(("model", "options"), ENCODERS, ids=lambda value: str(value))
def test_evaluation_is_of_each_image_alone_and_changes_nothing(
    model: str, options: dict[str, Any]
) -> None:
    encoder = Encoder(build_encoder(model, image_size=32, **options), [0.5] * 3, [0.25] * 3)
    images = torch.rand(6, 3, 32, 32)
    with torch.no_grad():
        encoder(images)
        encoder.eval()
        before = {key: value.clone() for key, value in encoder.state_dict().items()}
        together, alone = encoder(images), encoder(images[:1])
    torch.testing.assert_close(together[:1], alone, rtol=1e-3, atol=1e-4)
    assert all(torch.equal(before[key], value) for key, value in encoder.state_dict().items())


@pytest.mark.parametrize(("model", "options"), ENCODERS, ids=lambda value: str(value))
def test_half_precision_and_channels_last(model: str, options: dict[str, Any]) -> None:
    encoder = Encoder(build_encoder(model, image_size=32, **options), [0.5] * 3, [0.25] * 3)
    encoder = encoder.to(memory_format=torch.channels_last)
    images = torch.rand(4, 3, 32, 32).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        features = encoder(images)
    assert features.isfinite().all()
    features.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in encoder.parameters())


@pytest.mark.parametrize("model", ["resnet18", "convnet", "timm/resnet18"])
def test_the_seed_decides_the_weights(model: str) -> None:
    weights = []
    for _ in range(2):
        torch.manual_seed(5)
        weights.append(torch.cat([p.flatten() for p in build_encoder(model).parameters()]))
    assert torch.equal(*weights)
