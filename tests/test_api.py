"""Whole runs through the Python functions, on images of every kind."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

import byol
from byol.build import build_learner
from byol.checks import check
from byol.data.source import open_source
from byol.errors import UserError
from byol.options import from_dict
from byol.resolve import resolve

ROOT = Path(__file__).parent.parent
TINY: dict[str, Any] = {
    "model": "convnet",
    "epochs": 1,
    "batch_size": 16,
    "image_size": 16,
    "hidden_size": 16,
    "projection_size": 8,
    "workers": 0,
    "final_linear": False,
    "mode": "quiet",
}


@pytest.mark.parametrize(
    ("channels", "dtype"),
    [(1, np.uint8), (2, np.uint16), (3, np.uint8), (4, np.uint8), (13, np.float32)],
)
def test_any_number_of_channels_and_any_depth(
    tmp_path: Path, channels: int, dtype: type[np.generic]
) -> None:
    rng = np.random.default_rng(0)
    high = {np.uint8: 255, np.uint16: 4095, np.float32: 7.5}[dtype]  # type: ignore[index]
    images = (rng.random((40, 20, 20, channels)) * high).astype(dtype)
    np.save(tmp_path / "images.npy", images)
    byol.pretrain(tmp_path / "images.npy", out=tmp_path / "run", **TINY)
    described = json.loads((tmp_path / "run" / "encoder.json").read_text())
    assert described["in_chans"] == channels and len(described["mean"]) == channels
    if dtype is not np.uint8:
        assert described["value_range"] == pytest.approx([images.min(), images.max()])
    encoder = byol.load_encoder(tmp_path / "run")
    with torch.no_grad():
        features = encoder(torch.rand(2, channels, 16, 16))
    assert features.shape == (2, 128) and not encoder.training


def test_embedding_is_what_the_encoder_gives(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3), np.uint8)
    byol.pretrain(images, out=tmp_path / "run", **TINY)
    features, labels = byol.embed(tmp_path / "run", images)
    encoder = byol.load_encoder(tmp_path / "run" / "encoder.safetensors")
    with torch.no_grad():
        expected = encoder(torch.from_numpy(images).permute(0, 3, 1, 2) / 255)
    np.testing.assert_allclose(features, expected.numpy(), rtol=1e-4, atol=1e-5)
    assert (labels == -1).all()


def test_the_untrained_network_is_the_same_at_the_end_of_a_run_and_in_an_evaluation(
    tmp_path: Path,
) -> None:
    """Images lie class by class, as in most folders; neither may see the first classes alone."""
    generator = np.random.default_rng(0)
    files = []
    for name, each in (("train", 900), ("test", 100)):
        labels = np.repeat(np.arange(4), each)
        noise = generator.integers(0, 160, (len(labels), 16, 16, 3))
        images = (noise + 24 * labels[:, None, None, None]).astype(np.uint8)
        files.append(tmp_path / f"{name}.npz")
        np.savez(files[-1], images=images, labels=labels)
    train, test = map(str, files)
    run = byol.pretrain(train, out=tmp_path / "run", eval_data=test, **TINY)
    rows = byol.evaluate("knn", tmp_path / "run", train, eval_data=test)["rows"]
    for name in ("trained", "untrained"):
        assert rows[name]["top1"] == pytest.approx(run["knn"][name], abs=0.01)


def test_an_unreadable_image_has_no_row_in_an_embedding(tmp_path: Path) -> None:
    from PIL import Image

    data = tmp_path / "data"
    data.mkdir()
    for i in range(6):
        Image.new("RGB", (16, 16), (40 * i, 9, 9)).save(data / f"{i}.png")
    byol.pretrain(data, out=tmp_path / "run", **{**TINY, "batch_size": 4})
    (data / "2.png").write_bytes(b"nonsense")
    features, _ = byol.embed(tmp_path / "run", data, out=tmp_path / "f.npz")
    names = [Path(name).name for name in np.load(tmp_path / "f.npz")["locations"]]
    assert names == ["0.png", "1.png", "3.png", "4.png", "5.png"] and len(features) == 5


def test_the_saved_configuration_is_the_whole_of_it(tmp_path: Path) -> None:
    byol.pretrain("digits", out=tmp_path / "run", **TINY, view1_blur=0.25)
    plain = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    config = from_dict(plain)
    check(config)
    assert config.view1.blur == 0.25 and config.train.precision in ("bf16", "fp32")
    assert plain["source"] == "digits" and config.data.channels == 1
    assert config.data.mean is not None


def test_a_module_of_ones_own(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).mean((2, 3))

    images = np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3), np.uint8)
    byol.pretrain(images, out=tmp_path / "run", **{**TINY, "model": Net()})
    encoder = byol.load_encoder(tmp_path / "run", encoder=Net())
    assert encoder(torch.rand(2, 3, 16, 16)).shape == (2, 6)
    with pytest.raises(UserError, match="encoder"):
        byol.load_encoder(tmp_path / "run")


def test_small_and_large_images_choose_their_recipe() -> None:
    small = open_source(np.zeros((30, 32, 32, 3), np.uint8))
    large = open_source(np.zeros((30, 200, 220, 3), np.uint8))
    config, reasons = resolve(small, "x", None, {})
    assert config.recipe == "small-32" and config.data.image_size == 32
    assert any("recipe small-32" in reason for reason in reasons)
    config, _ = resolve(large, "x", None, {"epochs": "200"})
    assert config.recipe == "photos-224" and config.optim.epochs == 200


def test_the_target_starts_by_itself_or_as_a_copy() -> None:
    source = open_source(np.zeros((30, 16, 16, 3), np.uint8))
    options = {k: v for k, v in TINY.items() if k != "mode"}
    for independent in (True, False):
        config, _ = resolve(source, "x", None, {**options, "independent_target": independent})
        learner = build_learner(config)
        online, target = learner.projector.state_dict(), learner.target_projector.state_dict()
        assert all(torch.equal(online[k], target[k]) for k in online) != independent


def test_labels_that_are_held_out_are_not_pretrained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    data = (rng.integers(0, 256, (40, 16, 16, 3), np.uint8), np.arange(40) % 2)
    for hold_out, seen in ((False, 40), (True, 36)):
        out = tmp_path / str(hold_out)
        options = {**TINY, "mode": "plain", "epochs": 2, "batch_size": 4}
        byol.pretrain(data, out=out, **options, hold_out=hold_out)
        lines = (out / "metrics.jsonl").read_text().splitlines()
        assert json.loads(lines[-1])["step"] == 2 * seen // 4
        said = capsys.readouterr().out
        assert f"{seen} images, batch 4, 2 epochs are {seen // 2} steps" in said
        assert ("is left out, 36 are trained on" in said) == hold_out


def test_unlabelled_images_are_measured_on_another_labelled_set(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    flat = rng.integers(0, 256, (24, 16, 16, 3), np.uint8)
    labelled = tmp_path / "labelled.npz"
    images = rng.integers(0, 256, (30, 16, 16, 3), np.uint8)
    np.savez(labelled, images=images, labels=np.arange(30) % 3)
    result = byol.pretrain(flat, out=tmp_path / "run", eval_data=str(labelled), **TINY)
    assert 0 <= result["knn"]["trained"] <= 100
    np.save(tmp_path / "unlabelled.npy", images)
    with pytest.raises(UserError, match="no labels"):
        unlabelled = str(tmp_path / "unlabelled.npy")
        byol.pretrain(flat, out=tmp_path / "other", eval_data=unlabelled, **TINY)


def test_the_readme_loop_runs() -> None:
    """The loop of one's own, as printed, with random views and few steps."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    loop = next(block for block in blocks if "my_views" in block)
    assert sum(bool(line.strip()) for line in loop.splitlines()) <= 30
    names: dict[str, Any] = {"my_views": lambda: (torch.rand(8, 3, 32, 32),) * 2}
    exec(loop.replace("steps = 1000", "steps = 20"), names)
    assert all(torch.isfinite(p).all() for p in names["learner"].parameters())


def test_documents_hold_the_figures_of_their_files() -> None:
    import subprocess
    import sys

    command = [sys.executable, "-m", "benchmarks.tables", "--check"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout
