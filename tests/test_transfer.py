"""byol evaluate transfer, end to end on tiny data, and its parts by value."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression

from byol import cli
from byol.data.arrays import ArraySource
from byol.data.benchmarks import BENCHMARKS, Task
from byol.data.source import Joined
from byol.protocols import parse
from byol.tasks import transfer
from byol.tasks.extraction import frozen
from byol.tasks.logistic import STRENGTHS
from byol.tasks.subject import open_subject
from tests.test_benchmarks import caltech101, dtd, voc
from tests.test_evaluate_cli import TINY, colours, evaluate, refused


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on pictures with train, val and test splits, which lie beside it."""
    root = tmp_path_factory.mktemp("transfer")
    for seed, (split, n) in enumerate((("train", 10), ("val", 4), ("test", 4))):
        colours(root / "data" / split, n, seed=seed)
    assert cli.main(["pretrain", str(root / "data"), "--out", str(root / "run"), *TINY]) == 0
    return root / "run"


def test_own_data(run: Path, tmp_path: Path) -> None:
    found = evaluate("transfer", run, tmp_path)
    assert found["sizes"] == {"train": 30, "valid": 12, "test": 12, "classes": 3}
    assert set(found["rows"]) == {"trained", "untrained"}
    assert set(found["metrics"]) == {"top1", "top5", "mean_per_class"}
    assert found["rows"]["trained"]["top1"] > 60 and found["rows"]["trained"]["C"] in STRENGTHS


def test_own_data_without_validation_images(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = run.parent / "data"
    words = ["--eval-data", str(data / "test"), "--baselines", "false"]
    found = evaluate("transfer", run, tmp_path, *words, data=data / "train")
    assert found["sizes"] == {"train": 27, "valid": 3, "test": 12, "classes": 3}
    assert set(found["rows"]) == {"trained"}
    one = colours(tmp_path / "one", 1)
    said = refused(capsys, "transfer", run, one, "--eval-data", data / "test")
    assert "every class" in said and "val" in said
    two = tmp_path / "two"
    colours(two / "train", 8, ("blue", "green"))
    colours(two / "test", 2, ("blue", "green"))
    colours(two / "val", 2)
    assert "(red)" in refused(capsys, "transfer", run, two)


def test_linear_is_the_regression_chosen_on_validation_and_fitted_again(run: Path) -> None:
    subject = open_subject(run, device="cpu")
    generator = np.random.default_rng(0)

    def drawn(n: int) -> ArraySource:
        labels = np.arange(n) % 3
        noise = generator.normal(0, 60, (n, 16, 16, 3))
        pixels = np.clip(60 + 20 * labels[:, None, None, None] + noise, 0, 255)
        return ArraySource(pixels.astype(np.uint8), labels)

    task = Task(drawn(90), drawn(60), drawn(90), 3, "top1")
    row = transfer.linear(subject, task)
    (x, y), (vx, vy), (tx, ty) = (
        [part.double().numpy() for part in frozen(subject, source)]
        for source in (task.train, task.valid, task.test)
    )

    def score(strength: float, rows: Any, labels: Any, on: Any, truth: Any) -> float:
        model = LogisticRegression(C=strength, tol=1e-8, max_iter=20_000).fit(rows, labels)
        return 100 * float(model.score(on, truth))

    few = STRENGTHS[::4]
    best = max(score(strength, x, y, vx, vy) for strength in few)
    assert row["valid"] >= best - 0.2  # of all 45, so not below the best of these
    assert row["valid"] == pytest.approx(score(row["C"], x, y, vx, vy), abs=1e-6)
    both = np.concatenate([x, vx]), np.concatenate([y, vy])
    assert row["top1"] == pytest.approx(score(row["C"], *both, tx, ty), abs=1e-6)


def test_images_keep_their_border() -> None:
    """The shorter side becomes the image size, and its middle is cut out."""
    from byol.data.files import central_box

    assert central_box(100, 180, 224, share=1).tolist() == [0, 40, 100, 100]


def test_the_papers_grid() -> None:
    np.testing.assert_allclose(transfer.LRS, np.logspace(-4, -1, 7))
    np.testing.assert_allclose(transfer.WEIGHT_DECAYS, [0, *np.logspace(-6, -3, 7)])


def test_finetune(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "--mode finetune --steps 12 --batch-size 8 --lrs 0.0001,0.1 --weight-decays 0.001"
    found = evaluate("transfer", run, tmp_path, *words.split())
    assert "2 trainings of 12 steps" in capsys.readouterr().out
    assert set(found["rows"]) == {"trained", "supervised"}
    for row in found["rows"].values():
        assert row["weight_decay"] == pytest.approx(0.001 / row["lr"])
    assert found["rows"]["trained"]["lr"] == 0.1 and found["rows"]["trained"]["top1"] > 60
    assert evaluate("transfer", run, tmp_path, *words.split()) == found  # remembered


def test_the_grid_trains_on_train_and_the_end_on_both(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = open_subject(run, device="cpu")
    images = np.zeros((60, 16, 16, 3), np.uint8)
    train, valid, test = (ArraySource(images[:n], np.arange(n) % 2) for n in (40, 20, 10))
    task = Task(train, valid, test, 2, "top1")
    asked: list[Any] = []

    def trial(subject: Any, source: Any, at: Any, classes: int, tests: Any, **given: Any) -> Any:
        asked.append((len(source), list(tests), given["lr"], given["weight_decay"]))
        assert given["bn_momentum"] == pytest.approx(0.1) and given["steps"] == 7
        good = {(0.1, 0.02): 90.0, (0.01, 0.2): 80.0}.get((given["lr"], given["weight_decay"]), 0.0)
        return {name: {"top1": good} for name in tests}

    monkeypatch.setattr(transfer, "trial", trial)
    options = parse("transfer", {"steps": 7, "lrs": (0.01, 0.1), "weight_decays": (0, 0.002)})
    row = transfer.finetuned(subject, task, options, None, print)
    assert row == {"top1": 90.0, "lr": 0.1, "weight_decay": 0.02, "valid": 90.0}
    pairs = [(0.01, 0), (0.01, 0.2), (0.1, 0), (0.1, 0.02)]
    assert asked == [(40, ["valid"], *pair) for pair in pairs] + [(60, ["test"], 0.1, 0.02)]


def test_joined_sources() -> None:
    parts = [ArraySource(np.full((n, 4, 4), n, np.uint8), np.full(n, n)) for n in (2, 3, 1)]
    whole = Joined(*parts)
    assert len(whole) == 6 and whole.labels is not None
    assert whole.labels.tolist() == [2, 2, 3, 3, 3, 1]
    for i in range(6):
        image, label = whole.read(i)
        assert isinstance(image, np.ndarray) and label == whole.labels[i] == image[0, 0, 0]
    assert whole.locate(4).endswith("[2]") and whole.locate(5).endswith("[0]")


def test_every_set_that_is_there(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = voc(tmp_path / "sets")
    dtd(root)
    caltech101(root)
    words = ["--all", "--baselines", "false"]
    found = evaluate("transfer", run, tmp_path / "out", *words, data=root)
    out = capsys.readouterr().out
    assert (
        set(found["rows"]["trained"]) == set(found["metrics"]) == {"dtd", "caltech101", "voc2007"}
    )
    assert found["rows"]["trained"]["dtd"] > 60
    assert found["paper"]["dtd"] == {"BYOL (paper)": 75.5, "supervised (paper)": 74.9}
    assert len(found["missing"]) == len(BENCHMARKS) - 3
    assert "food101: Food-101 cannot be read" in out and "food-101/images" in out
    assert "DTD has 2 classes here and 47 in the paper" in out
    line = next(line for line in out.splitlines() if line.startswith("DTD     "))
    assert line.split()[-2:] == ["75.5", "74.9"]
    value = found["rows"]["trained"]["dtd"]
    assert f"{value:.1f}" == line.split()[2]


def test_mistakes(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "mean cifar10 or" in refused(capsys, "transfer", run, tmp_path, "--set", "cifar")
    said = refused(capsys, "transfer", run, tmp_path, "--set", "cifar10")
    assert "cifar-10-batches-py" in said and "kriz" in said
    said = refused(capsys, "transfer", run, tmp_path, "--set", "cifar10", "--all")
    assert "give one of them" in said
    assert "none of the paper's sets" in refused(capsys, "transfer", run, tmp_path, "--all")
    words = ["--mode", "finetune"]
    assert "0.0" in refused(capsys, "transfer", run, tmp_path, *words, "--lrs", "0")
    assert "steps is 0" in refused(capsys, "transfer", run, tmp_path, *words, "--steps", "0")
    said = refused(capsys, "transfer", run, voc(tmp_path), "--set", "voc2007", *words)
    assert "--mode linear" in said


def test_damaged_images_are_left_out(run: Path, tmp_path: Path) -> None:
    """Also where an image has several classes, whose rows stay beside their images."""
    root = voc(tmp_path)
    images = root / "VOCdevkit/VOC2007/JPEGImages"
    (images / "train0.jpg").write_bytes(b"nonsense")
    Image.new("L", (9, 5)).save(images / "train1.jpg")
    found = evaluate("transfer", run, tmp_path, "--set", "voc2007", data=root)
    assert torch.isfinite(torch.tensor(found["rows"]["trained"]["voc2007"]))
    assert json.loads((tmp_path / "transfer.json").read_text())["options"]["set"] == "voc2007"
