"""Whole commands over several processes: what is written, what is measured, what is refused."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import byol
from byol.data.source import write_index
from byol.engine.opening import open_together
from byol.engine.processes import start
from byol.errors import Agreed, UserError
from tests.contracts.test_sources import _tar
from tests.several import several
from tests.test_evaluate_cli import colours
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


def _train(run: Path, data: Path, protocol: str, options: dict[str, Any]) -> Any:
    try:
        return byol.evaluate(protocol, run, data, say=lambda line: None, **options)
    except UserError as error:
        return error


EACH = {
    "linear": {"epochs": 2},
    "semisup": {"fractions": (50,), "lrs": (0.01,), "epochs": (1,), "batch_size": 4},
    "supervised": {"epochs": 1, "batch_size": 4},
}


def test_what_trains_is_trained_once(tmp_path: Path) -> None:
    """The main process measures, the figures are those of one process, and it alone writes."""
    data, run = colours(tmp_path / "bank", 8), tmp_path / "run"
    byol.pretrain(pictures(75), out=run, **{**SMALL, "epochs": 1})
    for protocol, options in EACH.items():
        alone = several(1, _train, run, data, protocol, options)[0]
        written = run / "evaluations" / f"{protocol}.json"
        written.unlink()
        shutil.rmtree(run / "evaluations" / "work", ignore_errors=True)
        for found in several(2, _train, run, data, protocol, options):
            for name, row in alone["rows"].items():
                assert found["rows"][name] == pytest.approx(row, abs=1e-4)
        assert json.loads(written.read_text())["result"]["rows"].keys() == alone["rows"].keys()
    first, second = several(2, _train, run, run / "nowhere", "linear", {})
    assert isinstance(first, Agreed) and isinstance(second, Agreed)
    assert str(first) == str(second) and "nowhere does not exist" in str(first)


def _elsewhere(places: list[Path], data: str) -> Any:
    """Each process stands in a folder of its own; only the main one may build an index."""
    rank = int(os.environ.get("RANK", "0"))
    os.chdir(places[rank])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("byol.data.remote.write", _refuse)
        if rank:
            patch.setattr("byol.data.shards._scan_tar", lambda path: pytest.fail("indexed again"))
        try:
            with start(wants_gpu=False) as processes:
                source = open_together(processes, data).train
                return [source.read(i)[0] for i in range(len(source))]
        except UserError as error:
            return error


def _refuse(*_: Any) -> None:
    raise OSError("read-only")


@pytest.mark.parametrize("change", ["none", "missing", "other", "index"])
def test_one_index_for_all_and_a_missing_shard(tmp_path: Path, change: str) -> None:
    places = [tmp_path / "0", tmp_path / "1"]
    for place in places:
        place.mkdir()
        _tar(place)
    if change == "missing":
        (places[1] / "shards" / "000001.tar").unlink()
    elif change == "other":
        (places[1] / "shards" / "000001.tar").write_bytes(b"another")
    elif change == "index":
        write_index(str(places[0] / "shards"), str(places[0] / "all.index"))
    data = "all.index" if change == "index" else "shards"
    first, second = several(2, _elsewhere, places, data)
    if change == "none":
        assert len(first) == 6 and first == second
        return
    assert isinstance(first, Agreed) and str(first) == str(second)
    says = {"missing": "shards/000001.tar cannot be read here", "other": "data of so many bytes"}
    says["index"] = "all.index cannot be read (No such file"
    assert str(first).startswith("rank 1 (") and says[change] in str(first)


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
        ({}, ({"data": "nowhere.tar"}, {}), "rank 1 .*data = 'nowhere.tar' and rank 0 'tuple'"),
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


SLOW_TO_SPEAK = """
import os, sys, time
import torch.distributed as dist
from byol.cli import main

leave = dist.destroy_process_group
if os.environ["RANK"] == "0":
    dist.destroy_process_group = lambda: (time.sleep(1.5), leave())
sys.exit(main())
"""


@pytest.mark.slow
def test_torchrun_prints_one_sentence_and_every_process_ends(tmp_path: Path) -> None:
    """Also where the one who speaks is the last to leave: torchrun stops it when another has."""
    (tmp_path / "slow.py").write_text(SLOW_TO_SPEAK)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "3", str(tmp_path / "slow.py"), "pretrain", "digits"]
    command += ["--batch-size", "64", "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("byol:")]
    assert len(said) == 1 and "3 processes cannot share" in said[0]
