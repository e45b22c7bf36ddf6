"""One table of several runs, against numbers worked by hand."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from byol import cli
from byol.comparison import report
from byol.errors import UserError

METRICS = {"miou": "mean IoU in %", "lr": "learning rate"}


def _run(path: Path, seed: int, epochs: int, **results: Any) -> Path:
    """A run folder with evaluations on /data/pets; `end` becomes its result.json."""
    (path / "evaluations").mkdir(parents=True)
    config = {"train": {"seed": seed, "device": "cpu"}, "optim": {"epochs": epochs}}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    if end := results.pop("end", None):
        (path / "result.json").write_text(json.dumps(end))
    for name, result in results.items():
        options = {"seed": seed, "k": result.pop("k", 20)}
        written = {"protocol": name, "options": options, "data": "/data/pets", "result": result}
        (path / "evaluations" / f"{name}.json").write_text(json.dumps(written))
    return path


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    def segment(trained: float) -> dict[str, Any]:
        rows = {"trained": {"miou": trained, "lr": 0.02, "note": "x"}, "untrained": {"miou": 5.0}}
        return {"rows": rows, "metrics": METRICS, "classes": {"cat": 3}}

    return [
        _run(tmp_path / "long-seed0", 0, 9, knn={"top1": 80.0, "top5": 99}, segment=segment(40)),
        _run(tmp_path / "long-seed1", 1, 9, knn={"top1": 83.0, "top5": 99}, segment=segment(50)),
        _run(tmp_path / "long-seed2", 2, 9, knn={"top1": 86.0, "top5": 99}),
        _run(
            tmp_path / "short", 0, 1, knn={"top1": 70.5, "lr": 9, "k": 5},
            end={"knn": {"trained": 71.0, "raw_pixels": 30.0}, "linear": {}, "seconds": 9},
        ),
    ]  # fmt: skip


def _cells(markdown: str) -> dict[tuple[str, ...], list[str]]:
    lines = [line.strip("| ").split(" | ") for line in markdown.splitlines() if line[:1] == "|"]
    return {tuple(line[:4]): line[4:] for line in lines}


def test_seeds_are_folded_and_missing_is_said(runs: list[Path], tmp_path: Path) -> None:
    text = report(runs, tmp_path / "out")
    knn, segment = ("knn", "pets"), ("segment", "pets")
    top1, end = "top-1 accuracy in %", ("knn, end of training", "its own")
    assert _cells(text) == {
        ("protocol", "data", "metric", "encoder"): ["long (3 seeds)", "short"],
        ("---", "---", "---", "---"): ["---:", "---:"],
        (*knn, top1, "trained"): ["83.00 ± 3.00", "70.50"],
        (*knn, "top-5 accuracy in %", "trained"): ["99.00 ± 0.00", "missing"],
        (*end, top1, "trained"): ["missing", "71.00"],
        (*end, top1, "raw pixels"): ["missing", "30.00"],
        (*segment, "mean IoU in %", "trained"): ["45.00 ± 7.07 (2 of 3)", "missing"],
        (*segment, "mean IoU in %", "untrained"): ["5.00 ± 0.00 (2 of 3)", "missing"],
    }
    assert "note: knn on /data/pets was measured with different k: 20, 5" in text
    assert "different seed" not in text and str(runs[2]) in text


def test_files(runs: list[Path], tmp_path: Path) -> None:
    report(runs, tmp_path / "out")
    lines = list(csv.DictReader((tmp_path / "out" / "report.csv").read_text().splitlines()))
    assert len(lines) == 2 * 6
    found = next(
        x for x in lines if x["metric"] == "mean IoU in %" and x["run"] == "long (3 seeds)"
    )
    assert (found["protocol"], found["data"], found["encoder"]) == (
        "segment",
        "/data/pets",
        "trained",
    )
    assert float(found["mean"]) == 45 and float(found["deviation"]) == pytest.approx(50**0.5)
    assert found["seeds"] == "2"
    missing = next(x for x in lines if x["metric"] == "mean IoU in %" and x["run"] == "short")
    assert (missing["mean"], missing["deviation"], missing["seeds"]) == ("", "", "0")
    latex = (tmp_path / "out" / "report.tex").read_text()
    assert r"top-1 accuracy in \% & trained & 83.00 $\pm$ 3.00 & 70.50 \\" in latex
    assert latex.startswith(r"\begin{tabular}{llllrr}")
    with Image.open(tmp_path / "out" / "report.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    for colour in ((31, 119, 180), (255, 127, 14)):  # a bar of each run
        assert (pixels == colour).all(1).sum() > 1000
    assert "![bars](report.png)" in (tmp_path / "out" / "report.md").read_text()


def test_the_command(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "report", *map(str, runs[:2]), "--out", str(tmp_path / "r")]
    assert cli.main(words) == 0
    assert "45.00 ± 7.07" in capsys.readouterr().out and (tmp_path / "r" / "report.md").is_file()


def test_folders_without_a_configuration_stand_alone(tmp_path: Path) -> None:
    """Such as the --out of an evaluation of others' weights."""
    paths = [_run(tmp_path / name / "x", 0, 1, knn={"top1": 5.0}) for name in ("a", "b")]
    for path in paths:
        (path / "config.yaml").unlink()
        (path / "evaluations" / "knn.json").rename(path / "knn.json")
        (path / "evaluations").rmdir()
    text = report([*paths, paths[0]], tmp_path / "out")
    cells = _cells(text)
    assert cells["protocol", "data", "metric", "encoder"] == [str(path) for path in paths]
    assert cells["knn", "pets", "top-1 accuracy in %", "trained"] == ["5.00", "5.00"]


def test_data_of_the_same_last_name_stay_apart(tmp_path: Path) -> None:
    run = _run(tmp_path / "run", 0, 1, knn={"top1": 5.0})
    other = json.loads((run / "evaluations" / "knn.json").read_text())
    other |= {"data": "/other/pets", "result": {"top1": 6.0}}
    (run / "evaluations" / "knn-other.json").write_text(json.dumps(other))
    cells = _cells(report([run], tmp_path / "out"))
    assert cells["knn", "/data/pets", "top-1 accuracy in %", "trained"] == ["5.00"]
    assert cells["knn", "/other/pets", "top-1 accuracy in %", "trained"] == ["6.00"]


def test_what_cannot_be_reported(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no evaluation in .*empty: measure first"):
        report([tmp_path / "empty"], tmp_path / "out")
    with pytest.raises(UserError, match="nowhere is no folder"):
        report([tmp_path / "nowhere"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    run = _run(tmp_path / "run", 0, 1, knn={"top1": 5.0})
    (run / "evaluations" / "linear.json").write_text("{")
    (run / "evaluations" / "depth.json").write_text('{"protocol": "depth"}')
    text = report([run], tmp_path / "out")
    assert text.count("was left out, as it cannot be read") == 2 and "5.00" in text


def test_long_names_are_whole_in_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every label lies within the picture, and a learning rate has no panel."""
    from matplotlib.figure import Figure

    result = {
        "rows": {"trained": {"knn": 80.0, "lr": 0.3, "top1": 81.0}},
        "metrics": {
            "knn": "kNN top-1 in % of its features (k 20, 0.07), on held-out images",
            "top1": "top-1 accuracy in %",
            "lr": "chosen base learning rate",
        },
    }
    drawn: list[tuple[str, Any, Any]] = []
    save = Figure.savefig

    def look(figure: Figure, *arguments: Any, **options: Any) -> None:
        save(figure, *arguments, **options)
        drawn.extend(
            (text.get_text(), text.get_window_extent(), figure.bbox)
            for axis in figure.axes
            for text in (axis.yaxis.label, axis.title)
            if text.get_text()
        )

    monkeypatch.setattr(Figure, "savefig", look)
    run = _run(tmp_path / "run", 0, 1, supervised=result, an_evaluation_with_a_long_name=result)
    report([run], tmp_path / "out")
    assert len(drawn) == 8 and not any("rate" in words for words, _, _ in drawn)
    for words, extent, whole in drawn:
        assert extent.y0 >= 0 and extent.y1 <= whole.y1, words
