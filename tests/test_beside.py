"""Other encoders in the table of the one that is evaluated."""

from pathlib import Path

import pytest

from byol import api, cli
from byol.errors import UserError
from byol.tasks.beside import named
from tests.test_evaluate_cli import TINY, colours, evaluate, refused


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("beside")
    colours(root / "data" / "train", 12)
    colours(root / "data" / "test", 4, seed=1)
    assert cli.main(["pretrain", str(root / "data"), "--out", str(root / "run"), *TINY]) == 0
    return root / "run"


def test_names_come_from_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    given = [
        str(tmp_path / "runs/mine"), "mocov3=weights/r-50.pth", "weights/simclr.pth.tar",
        "timm:resnet18.a1_in1k", "runs/x=1/encoder.safetensors",
    ]  # fmt: skip
    assert list(named(given)) == ["mine", "mocov3", "simclr.pth", "resnet18.a1_in1k", "x=1"]
    assert named("a.pth") == {"a": "a.pth"}
    for twice in (["a.pth", "b/a.pth"], ["trained=a.pth"]):
        with pytest.raises(UserError, match="second row called"):
            named(twice)


def test_supervised_features_stand_beside(run: Path, tmp_path: Path) -> None:
    """What `supervised` leaves behind is measured as any encoder, without baselines of its own."""
    own = evaluate("supervised", run, tmp_path, "--epochs", "2", "--batch-size", "9")
    there = tmp_path / "supervised"
    found = evaluate("knn", run, tmp_path, "--beside", str(there), "--beside", f"again={run}")
    rows = found["rows"]
    assert list(rows) == ["trained", "untrained", "raw_pixels", "supervised", "again"]
    assert rows["supervised"]["top1"] == own["rows"]["supervised"]["knn"]
    assert rows["again"] == rows["trained"] and set(found["beside"]) == {"supervised", "again"}


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        ("linear", "--epochs 2"),
        ("semisup", "--fractions 50 --epochs 1 --lrs 0.01 --batch-size 9"),
        ("transfer", ""),
        ("transfer", "--mode finetune --steps 2 --batch-size 9 --lrs 0.01 --weight-decays 0"),
    ],
)
def test_every_table_takes_them(run: Path, tmp_path: Path, protocol: str, words: str) -> None:
    given = ["--beside", f"other={run / 'encoder.safetensors'}"]
    rows = evaluate(protocol, run, tmp_path, *words.split(), *given)["rows"]
    assert rows["other"] == rows["trained"] and len(rows) > 2


def test_mistakes_are_one_sentence(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = run.parent / "data"
    assert "nowhere.pth" in refused(capsys, "knn", run, data, "--beside", "nowhere.pth")
    with pytest.raises(UserError, match="nothing to put beside"):
        api.evaluate("supervised", run, data, out=tmp_path, beside=run)
