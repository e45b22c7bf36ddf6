"""Segmentation: its formulas, the command end to end, and that it learns."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from byol import api, cli
from byol.errors import UserError
from byol.networks.encoder import Encoder, build_encoder
from byol.networks.external import save_encoder
from byol.tasks import segment
from byol.tasks.dense import rate
from tests.scenes import SHAPES, write_voc

TINY: dict[str, Any] = {"steps": 3, "batch_size": 2, "crop": 40}


def make_run(folder: Path, model: str = "convnet-4", seed: int = 3) -> Path:
    """A run folder with a random encoder."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    encoder = Encoder(
        build_encoder(model, image_size=32), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    save_encoder(folder / "encoder", encoder, {"model": model, "image_size": 32})
    return folder


def test_the_loss_leaves_out_what_has_no_class() -> None:
    """By hand: scores of log 3 give 3 : 1, so -log(3/4) where right and -log(1/4) where wrong."""
    scores = torch.zeros(1, 2, 1, 3)
    scores[0, 0] = torch.tensor(3.0).log()
    masks = torch.tensor([[[0, 1, 255]]])
    expected = -(np.log(3 / 4) + np.log(1 / 4)) / 2
    assert segment.pixel_loss(scores, masks).item() == pytest.approx(expected)
    assert segment.pixel_loss(scores, torch.full((1, 1, 3), 255)).item() == 0


def test_summary_by_hand() -> None:
    """IoU 6/9, 2/5 and a class that is nowhere; 8 of 11 pixels are right."""
    counts = torch.tensor([[6, 1, 0], [2, 2, 0], [0, 0, 0]])
    found = segment.summary(counts)
    assert found["miou"] == pytest.approx(100 * (6 / 9 + 2 / 5) / 2)
    assert found["pixel_accuracy"] == pytest.approx(100 * 8 / 11)


def test_the_rate_drops_at_70_and_90_percent() -> None:
    factors = [rate(step / 10) for step in range(10)]
    assert factors == [1] * 7 + [0.1] * 2 + [0.01]


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run, data = make_run(tmp_path / "run"), write_voc(tmp_path / "voc", 4, 2, 48)
    Image.new("L", (48, 48), 255).save(data / "SegmentationClass" / "2007_000001.png")
    words = ["evaluate", "segment", str(run), str(data), "--frozen", "--lr", "0.01 1e30"]
    assert cli.main([*words, "--steps", "12", "--batch-size", "2", "--crop", "40"]) == 0
    printed = capsys.readouterr().out
    assert "1 pairs are left out" in printed and "trained: learning rate 0.01" in printed
    assert "loss is" in printed  # of the rate that diverges
    found = json.loads((run / "evaluations" / "segment.json").read_text())["result"]
    assert list(found["rows"]) == ["trained", "supervised", "untrained"]
    assert found["pairs"] == {"train": 3, "test": 2} and "empty" in found["skipped"][0]
    assert list(found["classes"]) == list(SHAPES)
    for name, row in found["rows"].items():
        assert row["lr"] == 0.01 and 0 <= row["miou"] <= 100
        shares = [of[name] for of in found["classes"].values() if of[name] is not None]
        assert row["miou"] == pytest.approx(np.mean(shares))
    with Image.open(run / "evaluations" / "segment.png") as picture:
        assert picture.width > picture.height  # five columns, two rows


def test_same_seed_same_numbers_and_a_stopped_training_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = write_voc(tmp_path / "voc", 4, 2, 48, classes=False)
    options = {**TINY, "baselines": False}
    results = []
    for name in "ab":
        run = make_run(tmp_path / name)
        results.append(api.evaluate("segment", run, data, say=lambda line: None, **options))
    (tmp_path / "b" / "evaluations" / "segment.json").unlink()
    with monkeypatch.context() as patch:  # finished: nothing is trained again
        patch.setattr(segment, "pixel_loss", None)
        again = api.evaluate("segment", tmp_path / "b", data, say=lambda line: None, **options)
    assert results[0] == results[1] == again
    assert list(again["classes"]) == ["class 0", "class 1", "class 2"]


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    run, data = make_run(tmp_path / "run"), write_voc(tmp_path / "voc", 3, 1, 48)
    for wrong, message in (
        ({"crop": 20}, "crop is 20"),
        ({"lr": (0.1, -1.0)}, "positive"),
        ({"steps": 0}, "steps is 0"),
        ({"eval_split": "test"}, "'test' was asked for"),
    ):
        with pytest.raises(UserError, match=message):
            api.evaluate("segment", run, data, **{**TINY, **wrong})
    vit = make_run(tmp_path / "vit", "vit_tiny_patch16_224")
    with pytest.raises(UserError, match="dense prediction needs"):
        api.evaluate("segment", vit, data, **TINY)


@pytest.mark.slow
def test_it_learns_twenty_images_by_heart(tmp_path: Path) -> None:
    """ResNet-18 from scratch on 20 drawn scenes that it is also measured on."""
    run, data = make_run(tmp_path / "run", "resnet18"), write_voc(tmp_path / "voc", 20, 0, 96)
    lists = data / "ImageSets" / "Segmentation"
    (lists / "val.txt").write_text((lists / "train.txt").read_text())
    found = api.evaluate(
        "segment", run, data, steps=200, batch_size=4, crop=97, lr=(0.03,), baselines=False
    )
    assert found["rows"]["trained"]["miou"] > 90
