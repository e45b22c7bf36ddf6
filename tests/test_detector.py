"""Faster R-CNN on an encoder: whose weights, which norms, what comes out."""

from typing import Any

import pytest
import torch
from torch import nn

from byol.errors import UserError
from byol.networks.detector import Boxes, Detector, _Pool
from byol.networks.encoder import Encoder, build_encoder
from byol.networks.resnet import ResNet

SMALL: dict[str, Any] = {"anchors": (16, 32), "proposals": 20, "rois": 8, "roi_size": 4}
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def tiny(norm: Any = nn.BatchNorm2d, **options: Any) -> Encoder:
    network = ResNet((1, 1, 1, 1), (8, 16, 24, 32), False, stem_channels=8, norm=norm, **options)
    return Encoder(network, MEAN, STD).eval()


def truth() -> list[Boxes]:
    box = torch.tensor([[4.0, 4, 30, 30]])
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    return [{"boxes": box, "labels": torch.tensor([1])}, none]


def images() -> list[torch.Tensor]:
    return [torch.rand(3, 40, 60), torch.rand(3, 50, 33)]


@pytest.mark.parametrize("neck", ["c4", "fpn"])
@pytest.mark.parametrize("kind", ["ours", "reference", "timm", "torchvision"])
def test_the_encoders_weights_arrive(neck: str, kind: str) -> None:
    """Its maps are those that the encoder's own stages give, conv5 included."""
    if kind == "timm":
        module = build_encoder("timm/resnet18")
    elif kind == "torchvision":
        from torchvision.models import resnet18

        module = resnet18()
        module.fc = nn.Identity()
    else:
        module = build_encoder("resnet18", reference=kind == "reference")
    encoder = Encoder(module, MEAN, STD, 64).eval()
    anchors = {"anchors": (8, 16, 32, 64, 128)} if neck == "fpn" else {}
    detector = Detector(encoder, 2, neck, **{**SMALL, **anchors}).eval()
    x = torch.rand(2, 3, 64, 64)
    maps = detector._maps(detector._stack(list(x)))
    last = (
        maps[3] if neck == "fpn" else detector.roi_heads.get_submodule("box_head.layer4")(maps[2])
    )
    torch.testing.assert_close(last.mean((2, 3)), encoder(x), rtol=1e-4, atol=1e-5)
    strides = [64 // m.shape[3] for m in maps]
    assert strides == ([4, 8, 16, 32] if neck == "fpn" else [4, 8, 16, 16])


@pytest.mark.parametrize("neck", ["c4", "fpn"])
def test_four_finite_losses_that_reach_every_weight(neck: str) -> None:
    anchors = {"anchors": (8, 16, 32, 64, 128)} if neck == "fpn" else {}
    detector = Detector(tiny(), 2, neck, **{**SMALL, **anchors}).train()
    losses = detector.losses(images(), truth())
    assert set(losses) == {
        "loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg",
    }  # fmt: skip
    sum(losses.values(), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
    without = [n for n, p in detector.named_parameters() if p.grad is None]
    assert not without and all(torch.isfinite(value) for value in losses.values())


def test_found_boxes_lie_in_their_image_with_labels_from_zero() -> None:
    detector = Detector(tiny(), 2, **SMALL).eval()
    predictor = detector.roi_heads.get_submodule("box_predictor.cls_score")
    assert isinstance(predictor, nn.Linear)
    nn.init.constant_(predictor.bias, 0)
    with torch.no_grad():
        predictor.bias[2] = 5  # all is of the second class
    for image, boxes in zip(images(), detector.detect(images()), strict=True):
        assert len(boxes["boxes"]) and set(boxes["labels"].tolist()) == {1}
        limits = torch.tensor([image.shape[2], image.shape[1]] * 2)
        assert (boxes["boxes"] >= 0).all() and (boxes["boxes"] <= limits).all()


def test_images_are_normalised_by_the_encoders_numbers_then_padded_with_zeros() -> None:
    detector = Detector(tiny(), 2, **SMALL)
    one, two = images()
    batch = detector._stack([one, two])
    assert batch.shape == (2, 3, 64, 64)
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    torch.testing.assert_close(batch[0, :, :40, :60], (one - mean) / std)
    assert batch[0, :, 40:].abs().max() == 0 and batch[1, :, :, 33:].abs().max() == 0


@pytest.mark.parametrize(("train_norms", "moves"), [(False, False), (True, True)])
def test_norm_statistics_stay_or_move(train_norms: bool, moves: bool) -> None:
    encoder = tiny()
    detector = Detector(encoder, 2, train_norms=train_norms, **SMALL).train()
    detector.losses(images(), truth())
    for name, before in encoder.module.named_buffers():
        if "running" in name:
            home = "roi_heads.box_head" if name.startswith("layer4") else "encoder.module"
            same = torch.equal(detector.get_buffer(f"{home}.{name}"), before)
            assert same != moves, name


def test_a_frozen_encoder_changes_in_nothing_and_the_given_one_never() -> None:
    encoder = tiny()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    for frozen in (True, False):
        detector = Detector(encoder, 2, frozen=frozen, train_norms=True, **SMALL).train()
        weights = [p for p in detector.parameters() if p.requires_grad]
        sgd = torch.optim.SGD(weights, 0.1)
        sum(detector.losses(images(), truth()).values(), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
        sgd.step()
        conv1 = detector.get_parameter("encoder.module.conv1.weight")
        conv5 = detector.get_parameter("roi_heads.box_head.layer4.0.conv1.weight")
        for name, value in (
            ("module.conv1.weight", conv1),
            ("module.layer4.0.conv1.weight", conv5),
        ):
            assert torch.equal(value, before[name]) == frozen
    assert all(torch.equal(value, before[n]) for n, value in encoder.state_dict().items())


def test_boxes_are_sampled_where_they_lie_even_in_narrow_padded_images() -> None:
    """A map that holds its own coordinates in pixels of the image: the middle comes back, half a
    stride off, as torchvision's RoIAlign places a cell's value at its upper left corner."""
    stride = 16
    ys = torch.arange(4) * stride + stride / 2
    xs = torch.arange(30) * stride + stride / 2
    grid = torch.stack(torch.meshgrid(xs, ys, indexing="xy"))[None]  # (1, 2, 4, 30)
    pooled = _Pool(1, 2, stride)({"0": grid}, [torch.tensor([[96.0, 16, 160, 48]])], [(33, 480)])
    torch.testing.assert_close(pooled.mean((2, 3)), torch.tensor([[128.0 + 8, 32.0 + 8]]))


def test_one_sentence_for_what_is_no_resnet_and_for_wrong_anchors() -> None:
    convnet = Encoder(build_encoder("convnet-1"), MEAN, STD)
    with pytest.raises(UserError, match="needs a ResNet .* ConvNet is none"):
        Detector(convnet, 2)
    with pytest.raises(UserError, match="anchors has 2 sides; fpn takes five"):
        Detector(tiny(), 2, "fpn", anchors=(8, 16))
