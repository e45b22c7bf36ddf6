"""The run folder: one writer, one configuration, no folder of somebody else's."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from byol.engine import runfolder
from byol.engine.runfolder import RunFolder
from byol.errors import UserError

CONFIG = {"optim": {"epochs": 100, "betas": (0.9, 0.99), "lr": 1e-06}, "train": {"workers": 2}}

HOLD = """
import os, sys, time
from byol.engine.runfolder import RunFolder
with RunFolder(sys.argv[1]):
    if len(sys.argv) > 2 and os.fork() == 0:
        time.sleep(2)  # a data worker that outlives its killed parent for a moment
        os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


def hold(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", HOLD, str(folder), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def kill(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_makes_the_folder_and_its_parents(tmp_path: Path) -> None:
    with RunFolder(str(tmp_path / "runs" / "x")) as folder:
        assert folder.root == tmp_path / "runs" / "x"
        assert folder.checkpoints == folder.root / "checkpoints" and folder.checkpoints.is_dir()


def test_the_second_writer_is_refused_and_told_who_is_first(tmp_path: Path) -> None:
    process = hold(tmp_path / "x")
    try:
        with pytest.raises(UserError, match=f"written by process {process.pid} on host .* since 2"):
            with RunFolder(tmp_path / "x"):
                pass
    finally:
        kill(process)
    with RunFolder(tmp_path / "x"):  # a kill frees the lock
        holder = json.loads((tmp_path / "x" / ".lock.holder").read_text())
        assert holder["pid"] == os.getpid()
    with RunFolder(tmp_path / "x"):
        pass


def test_two_in_one_process(tmp_path: Path) -> None:
    with RunFolder(tmp_path):
        with pytest.raises(UserError, match=f"process {os.getpid()}"):
            with RunFolder(tmp_path):
                pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_workers_that_outlive_a_killed_run_are_waited_for(tmp_path: Path) -> None:
    kill(hold(tmp_path / "x", "with a worker"))
    started = time.monotonic()
    with RunFolder(tmp_path / "x"):
        assert time.monotonic() - started < runfolder._ORPHANS_END_AFTER


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("mine")
    with pytest.raises(UserError, match="is a file"):
        with RunFolder(tmp_path / "x"):
            pass
    with pytest.raises(UserError, match="could not be written"):
        with RunFolder(tmp_path / "x" / "y"):
            pass
    assert (tmp_path / "x").read_text() == "mine"


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"holds thesis\.tex but no config\.yaml"):
        with RunFolder(tmp_path):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_killed_before_its_config_goes_on(tmp_path: Path) -> None:
    with RunFolder(tmp_path):
        (tmp_path / ".config.yaml.4242.tmp").write_text("half")
        (tmp_path / "checkpoints" / ".step.pt.4242.tmp").write_text("half")
    with RunFolder(tmp_path) as folder:
        assert not list(tmp_path.rglob("*.tmp"))
        folder.match_config(CONFIG)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere"
)
def test_a_folder_without_write_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        for path in (tmp_path, tmp_path / "new"):
            with pytest.raises(UserError, match="could not be written"):
                with RunFolder(path):
                    pass
    finally:
        tmp_path.chmod(0o755)


def test_a_read_only_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object, **options: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(UserError, match=r"could not be written \(Read-only file system\)"):
        with RunFolder(tmp_path):
            pass


def test_the_same_config_goes_on(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as folder:
        folder.match_config(CONFIG)
        first = (tmp_path / "config.yaml").read_bytes()
        folder.match_config(CONFIG)
    assert (tmp_path / "config.yaml").read_bytes() == first
    assert yaml.safe_load(first)["optim"] == {"epochs": 100, "betas": [0.9, 0.99], "lr": 1e-06}


def test_another_config_is_refused_with_the_differing_keys(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as folder:
        folder.match_config(CONFIG)
        before = (tmp_path / "config.yaml").read_bytes()
        other = {"optim": {"epochs": 200, "betas": (0.9, 0.99)}, "train": {"workers": 4}, "new": 1}
        with pytest.raises(UserError) as caught:
            folder.match_config(other, ignore=["train.workers"])
        assert str(caught.value) == (
            f"{tmp_path} was started with another configuration (--epochs: 100 in the folder, "
            "200 asked; new: not set in the folder, 1 asked; optim.lr: 1e-06 in the folder, "
            "not set asked): ask for the same values to go on with it, or give another --out, "
            "as a run can be neither changed nor prolonged"
        )
        assert (tmp_path / "config.yaml").read_bytes() == before


def test_ignored_keys_may_differ_and_are_written_anew(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as folder:
        folder.match_config(CONFIG)
        folder.match_config({**CONFIG, "train": {"workers": 8}}, ignore=["train"])
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["train"]["workers"] == 8


def test_a_config_of_before_a_key_existed_means_the_keys_default(tmp_path: Path) -> None:
    asked = {**CONFIG, "objective": {"beta": 0, "alpha": 0.5}}
    with RunFolder(tmp_path) as folder:
        folder.match_config(CONFIG)
        with pytest.raises(UserError, match="--alpha: 0.1 in the folder, 0.5 asked"):
            folder.match_config(asked, defaults={"objective": {"beta": 0, "alpha": 0.1}})
        folder.match_config(asked, defaults={"objective": {"beta": 0, "alpha": 0.5}})


@pytest.mark.parametrize("text", ["a: [", "just words", ""])
def test_a_damaged_config(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with RunFolder(tmp_path) as folder:
        with pytest.raises(UserError, match=r"config\.yaml .*give another --out"):
            folder.match_config(CONFIG)


def test_json_is_strict(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as folder:
        folder.write_json("result.json", {"knn": {"trained": float("nan")}, "words": ("é", 1)})
    text = (tmp_path / "result.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"knn": {"trained": None}, "words": ["é", 1]}
