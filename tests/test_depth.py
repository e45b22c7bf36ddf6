"""Depth: its formulas, drawn scenes of known depth, and the command end to end."""

import colorsys
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from byol import api, cli, rng
from byol.data.dense import Cut, DenseBatch, PairReader
from byol.data.pairs import open_pairs
from byol.errors import UserError
from byol.networks.dense import depth_head
from byol.protocols import Depth
from byol.tasks import depth
from byol.tasks.dense import Dense
from byol.tasks.subject import open_subject
from tests.scenes import depth_scene, write_depth
from tests.test_segment import make_run

TINY: dict[str, Any] = {"steps": 3, "batch_size": 2, "side": 36, "width": 44, "height": 34}


def test_reverse_huber_by_hand() -> None:
    """The largest error is 2, so c is 0.4: 0.2 and -0.4 count as they are, 1 as (1 + 0.16) / 0.8
    and -2 as (4 + 0.16) / 0.8; the error of 9 is not measured and moves neither c nor the mean."""
    error = torch.tensor([[0.2, -0.4, 1.0], [-2.0, 9.0, 0.0]], requires_grad=True)
    valid = torch.tensor([[True, True, True], [True, False, True]])
    loss = depth.reverse_huber(error, valid)
    assert loss.item() == pytest.approx((0.2 + 0.4 + 1.16 / 0.8 + 4.16 / 0.8 + 0) / 5)
    loss.backward()
    assert error.grad is not None
    slopes = torch.tensor([[1, -1, 1 / 0.4], [-2 / 0.4, 0, 0]]) / 5
    torch.testing.assert_close(error.grad, slopes)


def test_a_batch_without_measurements_has_no_loss() -> None:
    error = torch.ones(2, 3, requires_grad=True)
    loss = depth.reverse_huber(error, torch.zeros(2, 3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0 and error.grad is not None and (error.grad == 0).all()


def _batch(images: Tensor, index: np.ndarray) -> DenseBatch:
    return DenseBatch(images, images[:, 0], np.zeros_like(index), index)


def test_colours_by_the_standard_library() -> None:
    """Brightness, saturation, hue, grey, pixel by pixel; each image has draws of its own, whatever
    else is in its batch."""
    images, index = torch.rand(12, 3, 2, 2), np.arange(12)
    found = depth.colours(5, _batch(images, index))
    u = rng.uniforms(5, depth.COLOUR_STREAM, np.zeros(12), index, 4)
    assert 0 < (u[:, 3] < 0.3).sum() < 12
    for i in range(12):
        for y, x in np.ndindex(2, 2):
            pixel = np.clip(images[i, :, y, x].numpy() + 0.1255 * (2 * u[i, 0] - 1), 0, 1)
            h, s, v = colorsys.rgb_to_hsv(*pixel.tolist())
            turned = (h + 0.2 * (2 * u[i, 2] - 1)) % 1
            expected = np.array(colorsys.hsv_to_rgb(turned, min(1, s * (0.5 + u[i, 1])), v))
            if u[i, 3] < 0.3:
                expected = np.full(3, expected @ [0.2989, 0.587, 0.114])
            np.testing.assert_allclose(found[i, :, y, x].numpy(), expected, atol=2e-5)
    alone = depth.colours(5, _batch(images[4:5], index[4:5]))
    torch.testing.assert_close(alone[0], found[4])


def test_other_channels_get_brightness_alone() -> None:
    images = torch.full((3, 2, 4, 4), 0.5)
    found = depth.colours(1, _batch(images, np.arange(3)))
    u = rng.uniforms(1, depth.COLOUR_STREAM, np.zeros(3), np.arange(3), 1)[:, 0]
    expected = torch.from_numpy(0.5 + 0.1255 * (2 * u - 1)).float()
    torch.testing.assert_close(found, expected[:, None, None, None].expand_as(images))


class _Always(nn.Module):
    """Answers 3 m everywhere."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.full_like(images[:, :1], 3)


def test_errors_on_scenes_of_known_depth(tmp_path: Path) -> None:
    """Over the crops, through files and batches, against the formulas on the drawn depth."""
    pairs = open_pairs(write_depth(tmp_path / "depth", 1, 5), "depth")
    subject = open_subject(make_run(tmp_path / "run"), device="cpu")
    train, test = (PairReader(pairs[key], 3, (0, 255), (0.5,) * 3) for key in ("train", "test"))
    cut = Cut((50, 70), 0)
    dense = Dense(
        subject, Depth(batch_size=2), train, test, cut, cut, depth_head, depth._loss,
        lambda batch: batch.images, None,
    )  # fmt: skip
    found = depth.errors(dense, _Always())  # type: ignore[arg-type]
    scenes = np.stack([depth_scene(i)[1][5:55, 5:75] for i in range(1, 6)])
    truth = (np.rint(1000 * scenes).astype(np.float32) / np.float32(1000)).astype(np.float64)
    ratio = np.maximum(truth / 3, 3 / truth)
    assert found == pytest.approx({
        **{f"pct{n}": 100 * (ratio < 1.25**n).mean() for n in (1, 2, 3)},
        "rms": np.sqrt(((truth - 3) ** 2).mean()),
        "rel": (abs(truth - 3) / truth).mean(),
    }, rel=1e-5)  # fmt: skip


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run, data = make_run(tmp_path / "run"), write_depth(tmp_path / "depth", 5, 2, 60, 45)
    Image.fromarray(np.zeros((45, 60), np.uint16)).save(data / "depth" / "scene.3.png")
    (data / "train.txt").write_text((data / "train.txt").read_text() + "scene.99\n")
    words = ["evaluate", "depth", str(run), str(data), "--frozen", "--workers", "1"]
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]
    assert cli.main([*words, *flags]) == 0
    printed = capsys.readouterr().out
    assert "2 pairs are left out" in printed and "depth, untrained: rms" in printed
    found = json.loads((run / "evaluations" / "depth.json").read_text())["result"]
    assert list(found["rows"]) == ["trained", "supervised", "untrained"]
    assert found["pairs"] == {"train": 4, "test": 2}
    assert "scene.3.png: its depth is empty" in found["skipped"][0]
    assert "scene.99.jpg does not exist" in found["skipped"][1]
    for row in found["rows"].values():
        assert set(row) == set(found["metrics"]) and np.isfinite(list(row.values())).all()
    with Image.open(run / "evaluations" / "depth.png") as picture:
        assert picture.width > picture.height


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    run, data = make_run(tmp_path / "run"), write_depth(tmp_path / "depth", 2, 1)
    for wrong, message in (
        ({"width": 20}, "33 pixels"),
        ({"lr": 0.0}, "lr positive"),
        ({"depth_scale": 0.0}, "depth_scale"),
        ({"batch_size": 0}, "batch_size 0"),
    ):
        with pytest.raises(UserError, match=message):
            api.evaluate("depth", run, data, **{**TINY, **wrong})


@pytest.mark.slow
def test_it_learns_the_scenes(tmp_path: Path) -> None:
    """After a short training it is clearly better than the best constant depth, whose error is the
    deviation of the depths."""
    run, data = make_run(tmp_path / "run", "resnet18"), write_depth(tmp_path / "depth", 16, 0)
    (data / "test.txt").write_text((data / "train.txt").read_text())
    found = api.evaluate(
        "depth", run, data, steps=120, batch_size=8, side=60, width=80, height=60,
        lr=1.0, baselines=False,
    )  # fmt: skip
    truth = np.stack([depth_scene(i)[1][2:] for i in range(16)])
    assert found["rows"]["trained"]["rms"] < 2 / 3 * truth.std()
