"""byol evaluate knn, linear, semisup and supervised, end to end on a tiny run."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from byol import cli
from byol.tasks import supervised
from byol.tasks.features import open_labelled
from byol.tasks.finetune import finetune
from byol.tasks.subject import open_subject
from byol.viewspec import PRESETS

TINY = (
    "--model convnet-4 --epochs 1 --batch-size 8 --image-size 16 --hidden-size 16 "
    "--projection-size 8 --workers 0 --final-linear false --quiet"
).split()
COLOURS = {"blue": (40, 60, 200), "green": (30, 190, 60), "red": (210, 50, 40)}


def colours(path: Path, n: int, names: tuple[str, ...] = tuple(COLOURS), seed: int = 0) -> Path:
    """n noisy pictures of each colour, a folder each."""
    rng = np.random.default_rng(seed)
    for name in names:
        (path / name).mkdir(parents=True)
        for i in range(n):
            noise = rng.integers(-40, 40, (20, 24, 3))
            pixels = np.clip(np.array(COLOURS[name]) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(path / name / f"{name}{i}.png")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on 36 pictures with a test split of 12; its data lies beside it."""
    root = tmp_path_factory.mktemp("evaluate")
    colours(root / "data" / "train", 12)
    colours(root / "data" / "test", 4, seed=1)
    assert cli.main(["pretrain", str(root / "data"), "--out", str(root / "run"), *TINY]) == 0
    return root / "run"


def evaluate(protocol: str, run: Path, out: Path, *words: str, data: Path | None = None) -> Any:
    given = [str(data or run.parent / "data"), "--out", str(out), *words]
    assert cli.main(["evaluate", protocol, str(run), *given]) == 0
    return json.loads((out / f"{protocol}.json").read_text())["result"]


def refused(capsys: pytest.CaptureFixture[str], protocol: str, run: Path, *words: Any) -> str:
    """The one sentence of a refusal."""
    capsys.readouterr()
    out = ["--out", str(run.parent / "refused")]
    assert cli.main(["evaluate", protocol, str(run), *map(str, words), *out]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("byol: ")
    return error


def test_knn(run: Path, tmp_path: Path) -> None:
    found = evaluate("knn", run, tmp_path, "--k", "1,5,36", "--temperature", "0.07 1")
    assert set(found["rows"]) == {"trained", "untrained", "raw_pixels"}
    assert not found["leave_one_out"] and len(found["sweep"]["trained"]) == 6
    assert found["rows"]["raw_pixels"]["top1"] == 100 == found["rows"]["trained"]["top5"]
    first = found["sweep"]["trained"][0]
    assert first["k"] == 1 and found["rows"]["trained"]["top1"] == first["top1"]


def test_figures_that_are_not_kept_are_said_to_be(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, encoder = str(run.parent / "data"), str(run / "encoder.safetensors")
    assert cli.main(["evaluate", "knn", encoder, data, "--baselines", "false"]) == 0
    assert "nothing was written" in (said := capsys.readouterr().out) and "--out DIR" in said
    evaluate("knn", run, tmp_path, "--baselines", "false")
    assert "nothing was written" not in capsys.readouterr().out


def test_knn_leaves_one_out_without_a_test_set(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = run.parent / "data" / "train"
    found = evaluate("knn", run, tmp_path, "--k", "1", "--baselines", "false", data=data)
    assert found["leave_one_out"] and set(found["rows"]) == {"trained"}
    assert found["rows"]["trained"]["top1"] > 60  # and not the 100 of each image finding itself
    assert "1 to the 35" in refused(capsys, "knn", run, data, "--k", "36")


def test_linear(run: Path, tmp_path: Path) -> None:
    plain = evaluate("linear", run, tmp_path, "--epochs", "5")
    assert set(plain["rows"]) == {"trained", "untrained", "raw_pixels"}
    assert plain["rows"]["trained"]["top1"] > 60
    words = ["--variant", "improved", "--epochs", "2", "--rates", "0.3,3", "--baselines", "false"]
    improved = evaluate("linear", run, tmp_path, *words)
    assert set(improved["rows"]) == {"trained"} and improved["rows"]["trained"]["lr"] in (0.3, 3)


def test_data_that_cannot_be_measured_on(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = run.parent / "data"
    (tmp_path / "flat").mkdir()
    for i, file in enumerate((data / "test").rglob("*.png")):
        (tmp_path / "flat" / f"{i}.png").write_bytes(file.read_bytes())
    said = refused(capsys, "knn", run, data, "--eval-data", tmp_path / "flat")
    assert "flat has no labels" in said
    two = colours(tmp_path / "two", 10, ("blue", "green"))
    said = refused(capsys, "linear", run, two, "--eval-data", data / "test")
    assert "1 classes of which" in said and "(red)" in said and "test/red/red0.png" in said
    one = colours(tmp_path / "one", 1)
    assert "3 labelled images" in refused(capsys, "linear", run, one)
    assert "second image" in refused(capsys, "knn", run, one, "--k", "1")
    lonely = tmp_path / "list.txt"
    names = [f"{file}\t{'red' if i else 'blue'}" for i, file in enumerate(data.rglob("*.png"))]
    lonely.write_text("\n".join([*names, f"{next(data.rglob('*.png'))}"]))
    evaluate("linear", run, tmp_path, "--epochs", "1", data=lonely)
    assert "1 of 49 images" in capsys.readouterr().out


SHORT = ["--lrs", "0.02,0.2", "--epochs", "4", "--batch-size", "8"]


def test_semisup(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--fractions", "10,100", *SHORT]
    found = evaluate("semisup", run, tmp_path, *words)
    assert "8 trainings" in capsys.readouterr().out
    assert found["images"] == {"10%": 3, "100%": 36}
    assert set(found["rows"]) == {"trained", "supervised", "untrained"}
    assert set(found["rows"]["trained"]) == set(found["metrics"])
    assert found["curve"]["trained"]["100%"]["lr"] in (0.02, 0.2)
    assert found["rows"]["trained"]["top1_100%"] > 60
    assert (tmp_path / "semisup.png").stat().st_size
    # 2 subsets x 2 rates x 2 networks, and the 100 % once more with the held-out images
    assert len(list((tmp_path / "work" / "semisup").iterdir())) == 10
    again = evaluate("semisup", run, tmp_path, *words)
    assert again == found and "step" not in capsys.readouterr().out  # nothing is trained again


def test_semisup_with_a_list(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list.txt").write_text("blue0.png\nblue/blue1.png\nred3.png\nred99.png\n")
    words = ["--list", str(tmp_path / "list.txt"), "--baselines", "false", *SHORT]
    found = evaluate("semisup", run, tmp_path, *words)
    said = capsys.readouterr().out
    assert "1 of 4 names" in said and "red99.png" in said and "no image of class green" in said
    assert "3 images are fewer than a batch of 8" in said
    assert found["images"] == {"list": 3} and set(found["rows"]["trained"]) == {
        "top1_list", "top5_list",
    }  # fmt: skip
    data = run.parent / "data"
    (tmp_path / "list.txt").write_text("nobody.png")
    assert "nobody.png" in refused(capsys, "semisup", run, data, "--list", tmp_path / "list.txt")
    assert "up to 100" in refused(capsys, "semisup", run, data, "--fractions", "200")
    single = colours(tmp_path / "single", 1)
    given = (single, "--eval-data", data / "test")
    assert "one image" in refused(capsys, "semisup", run, *given)
    words = ["--eval-data", str(data / "test"), "--lrs", "0.1", "--epochs", "2"]
    evaluate("semisup", run, tmp_path, *words, "--fractions", "100", data=single)


def test_supervised(
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ["--batch-size", "8", "--k", "5"]
    found = evaluate("supervised", run, tmp_path, "--epochs", "6", *words)
    assert found["steps"] == 27 and found["epochs"] == 6
    row = found["rows"]["supervised"]
    assert set(row) == set(found["metrics"]) and row["top1"] > 60 and row["knn"] > 60
    shown: list[Any] = []

    def watched(*arguments: Any, **settings: Any) -> Any:
        shown.append(settings["views"])
        return finetune(*arguments, **settings)

    monkeypatch.setattr(supervised, "finetune", watched)
    own = evaluate("supervised", run, tmp_path, "--epochs", "1", "--views", "run", *words)
    assert own["steps"] == 4 and shown == [PRESETS["small"]]
    assert not (tmp_path / "work" / "supervised").exists()
    data = run.parent / "data"
    assert "seconds is -1" in refused(capsys, "supervised", run, data, "--seconds", "-1")


def test_seconds_become_steps_once(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3 seconds once and half a second a step: 20 seconds are 40 steps; asked again, the same."""
    clock = 0.0

    def fake(*arguments: Any, steps: int, **settings: Any) -> None:
        nonlocal clock
        clock += 3 + 0.5 * steps

    monkeypatch.setattr(supervised, "finetune", fake)
    monkeypatch.setattr(time, "process_time", lambda: clock)
    subject = open_subject(run)
    prepared = open_labelled(run.parent / "data", None, 0)
    given = (subject, prepared, 20.0, {"lr": 0.1}, tmp_path)
    assert supervised._affordable(*given) == 40
    before = clock
    assert supervised._affordable(*given) == 40 and clock == before
