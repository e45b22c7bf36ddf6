"""Checkpoints: bitwise round trip, damage, hostile files, full disk."""

import errno
import hashlib
import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from byol.engine import checkpoint, files
from byol.errors import UserError


class Reports(list[str]):
    def __call__(self, sentence: str) -> None:
        self.append(sentence)


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def state(value: float = 1.0) -> checkpoint.State:
    images = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)  # (B, C, H, W)
    model = torch.nn.Linear(2, 2)
    return {
        "images": images,
        "bf16": torch.randn(3, 4).t().bfloat16(),
        "nan": torch.tensor([float("nan"), -0.0, value]),
        "model": model.state_dict(),
        "nested": {"steps": [1, 2.5, "three", None, True], 7: (1, 2)},
    }


def saved_steps(folder: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in folder.iterdir())


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    def raw(x: torch.Tensor) -> bytes:
        return bytes(x.contiguous().flatten().view(torch.uint8).numpy())

    return a.dtype == b.dtype and a.stride() == b.stride() and raw(a) == raw(b)


def test_round_trip_is_bitwise_and_keeps_strides(tmp_path: Path) -> None:
    written = state()
    path = checkpoint.save(tmp_path, 1240, written)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.name == f"step-00001240-{digest[:16]}.pt"

    reports = Reports()
    found = checkpoint.newest(tmp_path, reports)
    assert found is not None and reports == []
    step, read = found
    assert step == 1240
    for key in ("images", "bf16", "nan"):
        assert same_bits(written[key], read[key]), key
    assert read["images"].is_contiguous(memory_format=torch.channels_last)
    assert read["nested"] == written["nested"]
    for key, value in written["model"].items():
        assert same_bits(value, read["model"][key])


def test_newest_two_are_kept(tmp_path: Path) -> None:
    for step in (10, 20, 30, 100_000_000):
        checkpoint.save(tmp_path, step, state(step))
    assert saved_steps(tmp_path) == [30, 100_000_000]


def test_nothing_to_resume(tmp_path: Path) -> None:
    reports = Reports()
    assert checkpoint.newest(tmp_path, reports) is None
    assert checkpoint.newest(tmp_path / "absent", reports) is None
    assert reports == []


@pytest.mark.parametrize("damage", ["truncated", "bit flip", "empty"])
def test_damaged_newest_is_reported_and_passed_over(tmp_path: Path, damage: str) -> None:
    checkpoint.save(tmp_path, 10, state())
    path = checkpoint.save(tmp_path, 20, state())
    whole = bytearray(path.read_bytes())
    flipped = whole.copy()
    flipped[len(flipped) // 2] ^= 1
    damaged: dict[str, bytearray] = {
        "truncated": whole[:-7],
        "bit flip": flipped,
        "empty": bytearray(),
    }
    path.write_bytes(damaged[damage])

    reports = Reports()
    found = checkpoint.newest(tmp_path, reports)
    assert found is not None and found[0] == 10
    assert len(reports) == 1 and path.name in reports[0] and "checksum" in reports[0]

    # The damaged one must not push out a good one when the resumed run saves earlier than it.
    checkpoint.save(tmp_path, 15, state())
    assert saved_steps(tmp_path) == [10, 15]


def test_all_damaged(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 10, state()).write_bytes(b"")
    reports = Reports()
    assert checkpoint.newest(tmp_path, reports) is None
    assert len(reports) == 2 and "step 0" in reports[1]


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 10, state())
    buffer = io.BytesIO()
    torch.save({"weights": Hostile(tmp_path / "owned")}, buffer)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()[:16]
    (tmp_path / f"step-00000020-{digest}.pt").write_bytes(buffer.getvalue())

    reports = Reports()
    found = checkpoint.newest(tmp_path, reports)
    assert found is not None and found[0] == 10
    assert "other than tensors" in reports[0]
    assert not (tmp_path / "owned").exists()


def test_unreadable_types_are_refused_at_save(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"state\['a'\]\[1\] is a float64"):
        checkpoint.save(tmp_path, 1, {"a": [1.0, np.float64(2)]})
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_one_sentence_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path, 10, state())
    checkpoint.save(tmp_path, 20, state())
    real_write = os.write
    room = [1000]

    def write(descriptor: int, data: bytes) -> int:
        if room[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = real_write(descriptor, bytes(data)[: room[0]])
        room[0] -= count
        return count

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(UserError, match=r"disk is full: .*step-00000030-.* needs .* are free"):
        checkpoint.save(tmp_path, 30, state())
    monkeypatch.undo()
    assert saved_steps(tmp_path) == [10, 20]
    assert checkpoint.newest(tmp_path, print) is not None


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root")
def test_full_disk_for_real(tmp_path: Path) -> None:
    if os.system(f"mount -t tmpfs -o size=64k none {tmp_path} 2>/dev/null"):
        pytest.skip("no tmpfs can be mounted here")
    try:
        checkpoint.save(tmp_path, 10, {"weights": torch.zeros(5000)})
        with pytest.raises(UserError, match="disk is full"):
            checkpoint.save(tmp_path, 20, {"weights": torch.zeros(50_000)})
        assert saved_steps(tmp_path) == [10]
    finally:
        os.system(f"umount {tmp_path}")


def test_unwritable_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="could not be written"):
        checkpoint.atomic_write(tmp_path / "absent" / "a.txt", b"a")


def test_interrupted_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.atomic_write(tmp_path / "a.txt", b"old")

    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.atomic_write(tmp_path / "a.txt", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_bytes() == b"old"


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".step-00000030-0123456789abcdef.pt.4242.tmp").write_bytes(b"half")
    (tmp_path / "mine.tmp").write_bytes(b"of the user")
    files.remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.tmp"]


def test_sizes() -> None:
    assert [files.size(n) for n in (0, 999, 45_100_000, 2.5e12)] == [
        "0 bytes", "999 bytes", "45.1 MB", "2.5 TB",
    ]  # fmt: skip
