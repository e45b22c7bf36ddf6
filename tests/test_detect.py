"""Detection from end to end: its rows, its resumption, the command, and that it learns."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from byol import cli
from byol.data.boxes import open_boxes
from byol.errors import UserError
from byol.networks.encoder import Encoder, build_encoder
from byol.networks.external import save_encoder
from byol.networks.resnet import ResNet
from byol.protocols import Detect
from byol.tasks import detect, training
from byol.tasks.detect import detections, evaluate, fitted, rate
from byol.tasks.precision import METRICS, average_precision
from byol.tasks.scenes import training_scenes
from byol.tasks.subject import Subject
from tests import shapes

TINY = Detect(
    min_side=48, max_side=64, steps=3, batch_size=2, anchors=(16, 32), proposals=20, rois=8,
    roi_size=4, lr=0.01,
)  # fmt: skip


def subject(network: ResNet | None = None) -> Subject:
    module = network or ResNet((1, 1, 1, 1), (8, 16, 24, 32), False, stem_channels=8)
    encoder = Encoder(module, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2)).eval()
    description = {"model": "custom", "in_chans": 3, "image_size": 64}
    return Subject("trained", encoder, description, torch.device("cpu"), "fp32")


def _silent(line: str) -> None:
    pass


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return shapes.voc(tmp_path / "voc", {"train": 4, "test": 3}, 64, 48)


def test_rows_tables_and_picture(data: Path, tmp_path: Path) -> None:
    (data / "Annotations/train000.xml").write_text(
        shapes.xml(64, 48, [("disc", 5, 5, 20, 20), ("square", 9, 9, 4, 4)])
    )
    said: list[str] = []
    result = evaluate(subject(), str(data), replace(TINY, frozen=True), tmp_path, said.append)
    assert list(result["rows"]) == ["trained", "supervised", "untrained"]
    assert all(set(row) == set(METRICS) for row in result["rows"].values())
    assert result["images"] == {"train": 4, "test": 3} and len(result["skipped_boxes"]) == 1
    boxes = open_boxes(data).test.boxes
    assert sum(row["boxes"] for row in result["classes"]["trained"].values()) == sum(
        len(each.classes) for each in boxes
    )
    assert any("train000.xml: square" in line for line in said)
    assert (tmp_path / "detect.png").read_bytes().startswith(b"\x89PNG")
    json.dumps(result)


def test_without_baselines_there_is_one_row(data: Path) -> None:
    options = replace(TINY, baselines=False, neck="fpn", anchors=(8, 16, 32, 64, 128))
    result = evaluate(subject(), str(data), options, None, _silent)
    assert list(result["rows"]) == ["trained"]


def _weights(data: Path, options: Detect, work: Path | None) -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    start = subject()
    torch.manual_seed(6 if work else 7)  # the state outside does not matter
    return fitted(start, open_boxes(data).train, options, False, "x", work).state_dict()


def test_an_interrupted_training_ends_where_a_whole_one_does(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(TINY, steps=4, norms="train")
    whole = _weights(data, options, None)
    monkeypatch.setattr(training, "SAVE_SECONDS", -1)  # save after every step
    asked: list[int] = []

    def stopped(*given: Any) -> Any:
        asked.append(given[5])
        for scenes in training_scenes(*given):
            if scenes.step == 2 and len(asked) == 1:
                raise KeyboardInterrupt
            yield scenes

    monkeypatch.setattr(detect, "training_scenes", stopped)
    with pytest.raises(KeyboardInterrupt):
        _weights(data, options, tmp_path)
    resumed = _weights(data, options, tmp_path)
    assert asked == [0, 2]
    assert all(torch.equal(whole[name], value) for name, value in resumed.items())


def test_found_boxes_are_in_pixels_of_the_original_image(data: Path) -> None:
    """Boxes of a detector that gives back the true ones of the resized image."""
    splits = open_boxes(data)

    class Knowing:
        asked = 0

        def detect(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
            found = []
            for image in images:
                true = splits.test.boxes[self.asked]
                scale = image.shape[2] / 64
                assert max(image.shape[1:]) == TINY.max_side * 2
                labels = torch.from_numpy(true.classes)
                found.append({
                    "boxes": torch.from_numpy(true.corners) * scale, "labels": labels,
                    "scores": torch.ones(len(labels)),
                })  # fmt: skip
                self.asked += 1
            return found

    options = replace(TINY, max_side=TINY.max_side * 2)
    knowing: Any = Knowing()
    found, true = detections(knowing, subject(), splits.test, options, [])
    assert average_precision(found, true, splits.train.names)[0]["ap"] == pytest.approx(100)


def test_the_rate_falls_at_two_thirds_and_at_four_fifths() -> None:
    steps = 1_500_000  # the paper's: 1e-4 from 1 M, 1e-5 from 1.2 M
    at = [rate(step / steps) for step in (0, 999_999, 1_000_000, 1_199_999, 1_200_000)]
    assert at == [1, 1, 0.1, 0.1, 0.01]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"steps": 0}, "steps is 0; it must be 1 or more"),
        ({"max_side": 40}, "max_side is 40, less than min_side, 48"),
        ({"anchors": (-1.0,)}, "anchors are"),
    ],
)
def test_options_that_cannot_be(data: Path, change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        evaluate(subject(), str(data), replace(TINY, **change), None, _silent)


def test_the_command(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    run.mkdir()
    encoder = Encoder(build_encoder("resnet18"), (0.5,) * 3, (0.2,) * 3)
    save_encoder(run / "encoder", encoder, {"model": "resnet18", "image_size": 64})
    flags = (
        "--min-side 48 --max-side 48 --steps 1 --batch-size 1 --rois 4 --proposals 10 --roi-size 2 "
        "--baselines false --device cpu --anchors 16,32"
    )
    assert cli.main(["evaluate", "detect", str(run), str(data), *flags.split()]) == 0
    written = json.loads((run / "evaluations/detect.json").read_text())
    assert set(written["result"]["rows"]["trained"]) == set(METRICS)
    assert "trained: ap50_voc" in capsys.readouterr().out
    assert cli.main(["evaluate", "detect", str(run), str(run), "--device", "cpu"]) == 2
    assert "is no set with boxes" in capsys.readouterr().err


@pytest.mark.slow
def test_twenty_images_are_learned_by_heart(tmp_path: Path) -> None:
    """From scratch, ResNet-18 and few proposals."""
    network = build_encoder("resnet18")
    assert isinstance(network, ResNet)
    splits = open_boxes(shapes.voc(tmp_path / "voc", {"train": 20, "test": 1}, 96, 72))
    options = replace(
        TINY, min_side=96, max_side=96, anchors=(12, 24, 36), proposals=40, rois=16, steps=200,
        batch_size=4, lr=0.02, norms="train",
    )  # fmt: skip
    start, frozen = detect._starts(subject(network), splits.train, options)["supervised"]
    detector = fitted(start, splits.train, options, frozen, "by heart", None)
    found, true = detections(detector, start, splits.train, options, [])
    means, _ = average_precision(found, true, splits.train.names)
    assert means["ap50"] > 90 and means["ap50_voc"] > 90
