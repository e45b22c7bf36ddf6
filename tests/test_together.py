"""Whole commands over several processes: what is written, what is measured, what is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import byol
from byol.errors import Agreed, UserError
from tests.several import several
from tests.test_fit import SMALL, pictures

pytestmark = pytest.mark.dist


def _pretrain(out: Path, options: dict[str, Any], *others: dict[str, Any]) -> Any:
    """`others`: what rank 1, 2, ... are asked for differently."""
    rank = int(os.environ.get("RANK", "0"))
    own = others[rank - 1] if rank and others else {}
    data = own.pop("data", None) or pictures(75)
    try:
        return byol.pretrain(data, out=out, **{**SMALL, **options, **own})
    except UserError as error:
        return error


def _losses(out: Path) -> list[float]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def test_a_run_of_two_processes_is_a_run(tmp_path: Path) -> None:
    """In float32 the first three steps agree; one run folder, one result, nothing left locked."""
    options = {"log_every": 1, "batch_size": 24, "epochs": 1, "precision": "fp32"}
    alone = several(1, _pretrain, tmp_path / "one", options)[0]
    first, second = several(2, _pretrain, tmp_path / "two", options)
    np.testing.assert_allclose(_losses(tmp_path / "two")[:3], _losses(tmp_path / "one")[:3], 1e-4)
    assert first == second == json.loads((tmp_path / "two" / "result.json").read_text())
    assert set(first["knn"]) == set(alone["knn"])
    one, two = ({p.name for p in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert two == one and ".lock.holder" not in two
    assert several(3, _pretrain, tmp_path / "two", options) == [first] * 3  # it is finished
    machine = json.loads((tmp_path / "two" / "environment.json").read_text())
    assert len(machine["processes"]) == 2


def _measure(run: Path, data: Path, queries: Path) -> Any:
    features, labels = byol.embed(run, data, out=run.parent / f"{os.environ.get('RANK')}.npz")
    result = byol.evaluate("knn", run, data, eval_data=str(queries), k=3, say=lambda line: None)
    few, _ = byol.embed(run, queries)
    return features, labels, result, few


def folder(path: Path, each: int) -> Path:
    """Two classes of pictures, one file of the second damaged."""
    images, labels = pictures(60)
    for label in (0, 1):
        (path / str(label)).mkdir(parents=True)
        for i, image in enumerate(images[labels == label][:each]):
            Image.fromarray(image).save(path / str(label) / f"{i}.png")
    (path / "1" / "broken.png").write_bytes(b"no picture")
    return path


def test_evaluation_over_processes_takes_every_image_once(tmp_path: Path) -> None:
    """11 and 3 files over 1, 2 and 4 processes, an undecodable one among them."""
    data, queries = folder(tmp_path / "bank", 5), folder(tmp_path / "queries", 1)
    run = tmp_path / "run"
    byol.pretrain(pictures(75), out=run, **{**SMALL, "epochs": 1})
    (features, labels, result, few), *_ = several(1, _measure, run, data, queries)
    assert len(features) == 10 and len(few) == 2 and labels.tolist() == [0] * 5 + [1] * 5
    for world in (2, 4):
        for found in several(world, _measure, run, data, queries):
            np.testing.assert_allclose(found[0], features, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(found[3], few, rtol=1e-4, atol=1e-5)
            assert found[1].tolist() == labels.tolist()
            for name, row in result["rows"].items():
                assert found[2]["rows"][name] == pytest.approx(row)
    written = np.load(tmp_path / "0.npz")["locations"]
    assert len(set(written)) == 10 and not (tmp_path / "1.npz").exists()


@pytest.mark.parametrize(
    ("options", "others", "says"),
    [
        ({"batch_size": 32}, ({}, {}), "3 processes cannot share equally"),
        (
            {"norm_over": "process", "norm_images": 3, "batch_size": 12},
            ({}, {}),
            "norm_images is 3",
        ),
        ({}, ({}, {"seed": 7}), "rank 2 .*train.seed = 7 and rank 0 0"),
        ({}, ({"data": "nowhere.tar"}, {}), "^rank 1 .*nowhere.tar does not exist"),
    ],
)
def test_one_sentence_for_all(
    tmp_path: Path, options: dict[str, Any], others: Any, says: str
) -> None:
    options = {"batch_size": 24, **options}
    found = several(3, _pretrain, tmp_path / "run", options, *others)
    assert all(isinstance(error, Agreed) for error in found)
    assert {str(error) for error in found} == {str(found[0])}
    with pytest.raises(UserError, match=says):
        raise found[0]
    assert not (tmp_path / "run").exists()


def _stranger(run: Path, options: dict[str, Any]) -> Any:
    """Rank 1 cannot read the checkpoints that rank 0 reads."""
    if os.environ["RANK"] == "1":
        from byol.engine import checkpoint

        checkpoint._read = lambda path: 1 / 0  # type: ignore[assignment, return-value]
    return _pretrain(run, options)


def test_a_checkpoint_that_one_cannot_read_is_refused_by_all(tmp_path: Path) -> None:
    options = {"batch_size": 24, "epochs": 1}
    several(2, _pretrain, tmp_path / "run", options)
    (tmp_path / "run" / "result.json").unlink()
    before = sorted((tmp_path / "run" / "checkpoints").iterdir())
    for error in several(2, _stranger, tmp_path / "run", options):
        assert isinstance(error, Agreed) and "that all machines share" in str(error)
    assert sorted((tmp_path / "run" / "checkpoints").iterdir()) == before


@pytest.mark.slow
def test_torchrun_prints_one_sentence_and_every_process_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += "--nproc-per-node 3 -m byol pretrain digits --batch-size 64 --out".split()
    done = subprocess.run([*command, str(tmp_path / "run")], capture_output=True, text=True)
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("byol:")]
    assert len(said) == 1 and "3 processes cannot share" in said[0]
