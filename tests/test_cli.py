"""The command line: what people type, right and wrong."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from byol import cli
from byol.options import options

TINY = (
    "--model convnet --epochs 1 --batch-size 8 --image-size 16 --hidden-size 16 "
    "--projection-size 8 --workers 0 --final-linear false --quiet"
).split()


def folder_of(path: Path, n: int, side: int = 20) -> Path:
    path.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(n):
        pixels = rng.integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(pixels).save(path / f"{i}.png")
    return path


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    try:
        code = cli.main([str(word) for word in words])
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def refused(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """The one sentence that a wrong command answers with."""
    code, _, error = run(capsys, *words)
    assert code == 2
    assert "Traceback" not in error and error.count("\n") == 1, error
    return error


def test_help_is_instant_and_loads_no_torch() -> None:
    code = "import sys, byol.cli; byol.cli.parse(['recipes']); print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout.strip() == "False"


def test_no_command_at_all_gets_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = run(capsys)
    assert code == 0 and "usage: byol" in text and "pretrain" in text


def test_help_fits_a_screen_and_help_all_has_every_option(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, short, _ = run(capsys, "pretrain", "--help")
    assert code == 0 and short.count("\n") <= 30
    code, full, _ = run(capsys, "pretrain", "--help-all")
    assert code == 0
    for name, _, option, _ in options():
        assert "--" + name.replace("_", "-") in full
        assert len(option.metadata["help"]) > 10
    plain = "out recipe model epochs batch-size image-size seed workers device precision"
    assert all(f"--{name}" in short for name in plain.split())


def test_a_folder_from_pretraining_to_features(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("cat", "dog"):
        folder_of(tmp_path / "data" / name, 15)
    data, out = tmp_path / "data", tmp_path / "run"
    code, _, error = run(capsys, "pretrain", data, "--out", out, *TINY)
    assert code == 0, error
    assert "knn" in json.loads((out / "result.json").read_text())
    for protocol in ("knn", "linear"):
        code, text, _ = run(capsys, "evaluate", protocol, out, data)
        assert code == 0 and "top-1" in text
    code, text, _ = run(capsys, "evaluate", "linear", out, data, "--augment", "--epochs", "2")
    assert code == 0 and "top-1" in text
    for name in ("features.npz", "features.parquet"):
        code, text, _ = run(capsys, "embed", out, data, "--out", tmp_path / name)
        assert code == 0 and "30 images" in text and (tmp_path / name).stat().st_size
    arrays = np.load(tmp_path / "features.npz")
    assert arrays["features"].shape == (30, 128) and set(arrays["labels"]) == {0, 1}
    code, text, _ = run(capsys, "views", data, "--preset", "medical", "--out", tmp_path / "v.png")
    assert code == 0 and (tmp_path / "v.png").stat().st_size


@pytest.mark.parametrize("n", [3, 5])
def test_a_folder_with_three_images_works(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, n: int
) -> None:
    data = folder_of(tmp_path / "few", n)
    code, _, error = run(
        capsys, "pretrain", data, "--out", tmp_path / "run", *TINY, "--epochs", "10"
    )
    assert code == 0, error


def test_wrong_input_is_answered_with_one_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = folder_of(tmp_path / "data", 9)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.doc").write_text("not images")
    out: list[str | Path] = ["--out", tmp_path / "run"]
    assert "does not exist" in refused(capsys, "pretrain", tmp_path / "nowhere", *out)
    assert "no image" in refused(capsys, "pretrain", tmp_path / "empty", *out)
    refused(capsys, "pretrain", tmp_path / "notes.doc", *out)
    assert "--epochs" in refused(capsys, "pretrain", data, "--epoch", "3")
    assert "--figure" not in refused(capsys, "pretrain", data, "--config", "x")  # ablate has it
    assert "resnet50" in refused(capsys, "pretrain", data, *out, "--model", "resnet5")
    assert "lars" in refused(
        capsys, "pretrain", data, *out, "--optimizer", "adamw", "--base-lr", "4"
    )
    assert "whole number" in refused(capsys, "pretrain", data, *out, "--batch-size", "many")
    assert "recipe" in refused(capsys, "pretrain", data, *out, "--recipe", "paper")
    assert "preset" in refused(capsys, "pretrain", data, *out, "--preset", "nature")
    assert "raise --epochs" in refused(capsys, "pretrain", data, *out, "--epochs", "0.01")
    assert "quadruple" in refused(capsys, "pretrain", data, *out, "--precision", "quadruple")
    refused(capsys, "pretrain", data, *out, "--device", "abacus")
    on_cpu = ["--cuda-graph", "true", "--device", "cpu"]
    assert "the device is cpu" in refused(capsys, "pretrain", data, *out, *TINY, *on_cpu)
    refused(capsys, "evaluate", "knn", tmp_path / "nowhere", data)
    error = refused(capsys, "embed", tmp_path / "nowhere", data, "--out", tmp_path / "x.npz")
    assert "nowhere, which does not exist: give a run folder" in error and "timm:NAME" in error
    for name, value in (("epochs", -1), ("epochs", 0), ("batch-size", 0), ("image-size", 0)):
        refused(capsys, "pretrain", data, *out, f"--{name}", str(value))
    refused(capsys, "views", data, "--image-size", "0", "--out", tmp_path / "v.png")
    for wrong, meant in (("pretrian", "pretrain"), ("embedd", "embed")):
        sentence = f"byol: there is no command {wrong!r}; did you mean {meant}?"
        assert sentence in refused(capsys, wrong, data, *out)
    assert "there is no protocol 'kn'; did you mean knn?" in refused(capsys, "evaluate", "kn")
    assert "did you mean documents?" in refused(
        capsys, "pretrain", data, *out, "--preset", "docments"
    )
    assert "did you mean paper-300" in refused(capsys, "pretrain", data, "--recipe", "paper300")
    refused(capsys, "xyz")
    assert not (tmp_path / "run").exists()  # a typo leaves no folder behind that refuses its mend


def test_a_finished_run_says_so_and_measures_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = folder_of(tmp_path / "data", 9)
    words: list[str | Path] = ["pretrain", data, "--out", tmp_path / "run", *TINY]
    assert run(capsys, *words)[0] == 0
    before = (tmp_path / "run" / "result.json").read_bytes()
    code, text, _ = run(capsys, *words[:-1])  # without --quiet
    assert code == 0 and "is finished" in text and "writing to" not in text
    assert "kNN" not in text and "evaluate" not in text  # without labels
    assert (tmp_path / "run" / "result.json").read_bytes() == before


def test_what_came_out_and_what_is_next_is_said_each_time(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("cat", "dog"):
        folder_of(tmp_path / "my data" / name, 15)
    words: list[str | Path] = ["pretrain", tmp_path / "my data", "--out", tmp_path / "run", *TINY]
    words = words[:-1]  # without --quiet
    code, first, _ = run(capsys, *words)
    assert code == 0 and "batch 8, 1 epoch is 3 steps" in first
    code, again, _ = run(capsys, *words)
    assert code == 0 and "is finished" in again
    for text in (first, again):
        where, following = text.splitlines()[-2:]
        assert "kNN: trained " in text and "raw pixels" in text
        assert "run/encoder.safetensors" in where and "run/curves.png" in where
        assert f"byol embed {tmp_path}/run '{tmp_path}/my data' --out " in following
        assert f"or byol evaluate linear {tmp_path}/run '" in following
    for value in json.loads((tmp_path / "run" / "result.json").read_text())["knn"].values():
        assert value == round(value, 2)


def test_the_neighbours_asked_for_must_exist(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("cat", "dog"):
        folder_of(tmp_path / "data" / name, 15)
    assert run(capsys, "pretrain", tmp_path / "data", "--out", tmp_path / "run", *TINY)[0] == 0
    for k in ("0", "1000"):
        assert "bank" in refused(
            capsys, "evaluate", "knn", tmp_path / "run", tmp_path / "data", "--k", k
        )


def test_unlabelled_data_cannot_be_evaluated(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = folder_of(tmp_path / "flat", 12)
    assert run(capsys, "pretrain", data, "--out", tmp_path / "run", *TINY)[0] == 0
    assert "no labels" in refused(capsys, "evaluate", "knn", tmp_path / "run", data)
    assert "knn" not in json.loads((tmp_path / "run" / "result.json").read_text())


def test_another_config_in_the_same_folder_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = folder_of(tmp_path / "data", 12)
    assert run(capsys, "pretrain", data, "--out", tmp_path / "run", *TINY)[0] == 0
    error = refused(capsys, "pretrain", data, "--out", tmp_path / "run", *TINY, "--seed", "7")
    assert "--seed: 0 in the folder, 7 asked" in error and "prolonged" in error


def test_two_runs_in_one_folder_at_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data", 12)
    command = [sys.executable, "-m", "byol", "pretrain", str(data), "--out", str(tmp_path / "run")]
    first = subprocess.Popen([*command, *TINY, "--epochs", "100000"])
    try:
        while not (tmp_path / "run" / "metrics.jsonl").exists() and first.poll() is None:
            time.sleep(0.05)
        error = refused(capsys, "pretrain", data, "--out", tmp_path / "run", *TINY)
        assert str(first.pid) in error
    finally:
        first.terminate()
        first.wait()
    assert first.returncode == 130  # SIGTERM saves, then ends


def test_a_folder_that_cannot_be_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = folder_of(tmp_path / "data", 9)
    (tmp_path / "file").write_text("in the way")
    refused(capsys, "pretrain", data, "--out", tmp_path / "file" / "run", *TINY)


def test_bad_files_are_listed_and_too_many_end_the_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = folder_of(tmp_path / "data", 20)
    (data / "0.png").write_bytes(b"nonsense")
    Image.new("RGB", (30, 25)).save(data / "other-size.png")
    code, _, error = run(capsys, "pretrain", data, "--out", tmp_path / "run", *TINY)
    assert code == 0, error
    listed = (tmp_path / "run" / "bad_files.txt").read_text()
    assert "0.png" in listed and listed.count("\n") == 1
    for i in range(1, 12):
        (data / f"{i}.png").write_bytes(b"nonsense")
    error = refused(capsys, "pretrain", data, "--out", tmp_path / "run2", *TINY, "--epochs", "30")
    assert "bad_share" in error or "bad-share" in error


def test_doctor_and_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = run(capsys, "doctor")
    assert code == 0 and "torchvision" in text and "would be used" in text
    assert f"({sys.executable}): ok" in text and f"free in {Path.cwd()}" in text  # not broken
    code, text, _ = run(capsys, "recipes")
    assert code == 0 and "paper-1000" in text and "74.3" in text
    code, text, _ = run(capsys, "recipes", "small-32", "--images", "4000")
    assert (
        code == 0
        and text.startswith("# Images of about 32 pixels")
        and "tau_base" in text
        and "4,000 images" in text
    )
