"""The loader of files: the same batches for any number of workers and from any step."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from byol.build import build_loader
from byol.config import Config
from byol.data.files import FileLoader, central_box, cut, images
from byol.data.loader import Batch, CropSpec, ResidentLoader
from byol.data.reader import BadFiles, Decoder
from byol.data.source import open_source
from byol.engine.gradients import make_views
from byol.errors import UserError
from byol.options import with_options

RGB: dict[str, Any] = {"channels": 3, "value_range": (0, 255)}
BOTH = (CropSpec(), CropSpec())


def _photos(where: Path, n: int = 5) -> Path:
    """Noise of various sizes, some smaller than the crop."""
    where.mkdir(exist_ok=True)
    draw = np.random.default_rng(0)
    for i in range(n):
        noise = draw.integers(0, 256, (9 + 7 * i, 40 - 3 * i, 3), np.uint8)
        Image.fromarray(noise).resize((60 - 10 * i, 12 + 9 * i)).save(where / f"{i}.png")
    return where


def _loader(data: Any, **options: Any) -> FileLoader:
    settings = {**RGB, "size": 16, "crops": BOTH, "batch_size": 4, "seed": 3, **options}
    return FileLoader(open_source(data), **settings)


def _equal(one: Batch, other: Batch) -> bool:
    arrays = np.array_equal(one.index, other.index) and np.array_equal(one.epoch, other.epoch)
    return arrays and torch.equal(one.crops, other.crops) and torch.equal(one.labels, other.labels)


def test_workers_and_start_change_nothing(tmp_path: Path) -> None:
    loader = _loader(_photos(tmp_path))
    batches = list(loader.batches(0, 6))
    assert batches[0].crops.shape == (4, 2, 3, 16, 16) and batches[0].crops.dtype == torch.uint8
    assert batches[0].labels.tolist() == [-1] * 4
    assert np.concatenate([batch.epoch for batch in batches]).tolist() == [
        place // 5 for place in range(24)
    ]
    state = torch.get_rng_state()
    again = list(_loader(tmp_path, workers=2).batches(2, 6))
    assert len(again) == 4 and all(map(_equal, batches[2:], again))
    assert torch.equal(state, torch.get_rng_state())
    assert all(map(_equal, batches, _loader(tmp_path, cache_bytes=10**6).batches(0, 6)))
    assert not _equal(batches[0], next(_loader(tmp_path, seed=4).batches(0, 1)))
    assert not torch.equal(batches[0].crops[:, 0], batches[0].crops[:, 1])


def test_the_choices_of_speed_reach_crops_and_views(tmp_path: Path) -> None:
    """And are off by default."""
    noise = np.random.default_rng(0).integers(0, 256, (400, 500, 3), np.uint8)
    for i in range(2):
        Image.fromarray(noise).resize((800, 600 + i)).save(tmp_path / f"{i}.jpg", quality=90)
    source = open_source(str(tmp_path))
    options: dict[str, Any] = {"image_size": 64, "batch_size": 2, "workers": 0, "seed": 3}
    options |= {"view1_blur_sigma_min": 0.66, "view1_blur_sigma_max": 0.66}  # 5 of 7 taps stay

    def made(**choices: str) -> tuple[Batch, torch.Tensor]:
        config = with_options(Config(), {**options, **choices})
        batch = next(build_loader(config, source, torch.device("cpu")).batches(0, 1))
        return batch, torch.stack(make_views(config, batch, torch.device("cpu")))

    batch, seen = made()
    for at_least, name in ((None, "full"), (128, "reduced")):
        loader = _loader(tmp_path, size=64, batch_size=2, at_least=at_least)
        assert _equal(made(jpeg_scale=name)[0], next(loader.batches(0, 1)))
    assert not torch.equal(batch.crops, made(jpeg_scale="reduced")[0].crops)
    assert torch.equal(seen, made(blur_taps="exact")[1])
    apart = (seen - made(blur_taps="3-sigma")[1]).abs().max()
    assert 0 < apart < 0.53 / 255


def test_data_set_travels_to_a_worker(tmp_path: Path) -> None:
    loader = _loader(_photos(tmp_path))
    copy: FileLoader = pickle.loads(pickle.dumps(loader))
    assert _equal(next(loader.batches(0, 1)), next(copy.batches(0, 1)))


@pytest.mark.parametrize("antialias", [True, False])
def test_agrees_with_the_resident_loader(antialias: bool) -> None:
    # Without bright and dark extremes, which are cut off between the two passes of a resize.
    pixels = np.random.default_rng(0).integers(96, 160, (6, 24, 20, 3), np.uint8)
    loader = _loader(pixels, antialias=antialias)
    resident = ResidentLoader(
        torch.from_numpy(pixels).permute(0, 3, 1, 2),
        torch.full((6,), -1),
        size=16,
        crops=BOTH,
        batch_size=4,
        seed=3,
        antialias=antialias,
    )
    for one, other in zip(loader.batches(0, 3), resident.batches(0, 3), strict=True):
        assert np.array_equal(one.index, other.index)
        difference = (one.crops.int() - other.crops.int()).abs()
        assert difference.max() <= 2 and difference.float().mean() < 0.3


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_channels_and_depths(channels: int, dtype: type[np.generic]) -> None:
    pixels = np.random.default_rng(0).integers(0, 200, (5, 30, 20, channels)).astype(dtype)
    deep = dtype is np.uint16
    values = (0, 199) if deep else (0, 255)
    batch = next(_loader(pixels, channels=channels, value_range=values).batches(0, 1))
    assert batch.crops.shape == (4, 2, channels, 16, 16)
    assert batch.crops.dtype == (torch.float32 if deep else torch.uint8)
    assert not deep or (0 <= batch.crops.min() and batch.crops.max() <= 1)


def test_cut_by_value() -> None:
    image = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    image[:, :, 2:6, 4:8] = 90
    for antialias in (True, False):  # only pixels of the box count
        assert torch.all(cut(image, np.array([2, 4, 4, 4]), 9, antialias) == 90)
    assert torch.equal(cut(image, np.array([0, 0, 8, 8]), 8), image[0])


@pytest.mark.parametrize(
    ("height", "width", "size", "box"),
    [
        (256, 320, 224, (16, 48, 224, 224)),  # 224 / 256 of the shorter side, centred
        (512, 512, 224, (32, 32, 448, 448)),
        (32, 32, 32, (0, 0, 32, 32)),
        (32, 48, 224, (0, 8, 32, 32)),
        (224, 224, 224, (0, 0, 224, 224)),
    ],
)
def test_central_box(height: int, width: int, size: int, box: tuple[int, ...]) -> None:
    assert central_box(height, width, size).tolist() == list(box)


def test_central_box_is_the_official_one(golden: Callable[[str], Any]) -> None:
    """On images of more than 64 pixels; smaller ones lose no border."""
    for height, width, *box in golden("resize_and_crop")["center_crop"].tolist():
        if min(height, width) > 64 and (height, width) != (224, 224):
            assert central_box(height, width, 224).tolist() == box


def test_evaluation_in_order(data_dir: Path) -> None:
    source = open_source(data_dir / "photos", "val")
    one = list(images(source, 64, 3, (0, 255), 32, 2, np.arange(10, 80)))
    assert [len(crops) for crops, _, _ in one] == [32, 32, 6]
    assert np.concatenate([places for _, _, places in one]).tolist() == list(range(10, 80))
    assert torch.cat([labels for _, labels, _ in one]).tolist() == [i // 10 for i in range(10, 80)]
    other = list(images(source, 64, 3, (0, 255), 70, 0, range(10, 80)))
    assert torch.equal(torch.cat([crops for crops, _, _ in one]), other[0][0])


def _with_broken(data_dir: Path, where: Path, good: int) -> Path:
    _photos(where, good)
    for file in (data_dir / "photos_broken").iterdir():
        (where / file.name).write_bytes(file.read_bytes())
    return where


def test_bad_files_are_replaced_and_listed(data_dir: Path, tmp_path: Path) -> None:
    _with_broken(data_dir, tmp_path, 3)
    loaders = [_loader(tmp_path, workers=workers) for workers in (0, 2)]
    runs = [list(loader.batches(0, 8)) for loader in loaders]
    assert all(map(_equal, *runs))
    assert np.unique(runs[0][0].index).size == 4  # the places that were asked for
    for loader in loaders:
        assert len(loader.bad) == 2 and any("truncated" in line for line in loader.bad)
        assert all(line.startswith(str(tmp_path)) for line in loader.bad)
    bad: list[str] = []
    kept = [places for _, _, places in images(open_source(tmp_path), 8, 3, (0, 255), 2, bad=bad)]
    assert np.concatenate(kept).tolist() == [0, 1, 2] and len(bad) == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_only_bad_files(data_dir: Path, workers: int) -> None:
    broken = data_dir / "photos_broken"
    with pytest.raises(UserError, match="2 images could not be decoded in the place of one") as it:
        next(_loader(broken, workers=workers).batches(0, 1))
    assert "\n" not in str(it.value)
    with pytest.raises(UserError, match="no image of .* could be decoded"):
        list(images(open_source(broken), 8, 3, (0, 255), 2, workers))


def test_too_many_bad_files(tmp_path: Path) -> None:
    source = open_source(np.zeros((1000, 4, 4), np.uint8))
    judge = BadFiles(source, share=0.1)
    judge.add(64, {i: f"{i}" for i in range(10)})  # too early to judge
    judge.add(64, {i: f"{i}" for i in range(10, 20)})
    judge.add(128, {5: "5"})  # 20 of 256: each counts once
    assert len(judge.bad) == 20
    with pytest.raises(UserError, match="40 of 356 images .* more than the share of 0.1"):
        judge.add(100, {i: f"{i}" for i in range(20, 40)})


def test_a_vanished_file_is_a_bad_file(tmp_path: Path) -> None:
    source = open_source(_photos(tmp_path))
    (tmp_path / "2.png").unlink()
    decoder = Decoder(source, 3, (0, 255), seed=1)
    image, _, bad = decoder.read_or_replace(2)
    again, _, _ = Decoder(source, 3, (0, 255), seed=1).read_or_replace(2)
    assert list(bad) == [2] and "2.png" in bad[2] and torch.equal(image, again)


SCRIPT = """
import multiprocessing, signal, sys, threading, time
from byol.data.files import FileLoader
from byol.data.loader import CropSpec
from byol.data.source import open_source
def name_workers():
    while len(children := multiprocessing.active_children()) < 2:
        time.sleep(0.001)
    print(*[child.pid for child in children], flush=True)
def main():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    multiprocessing.set_start_method(sys.argv[2])
    threading.Thread(target=name_workers).start()
    loader = FileLoader(open_source(sys.argv[1]), channels=3, value_range=(0, 255), size=16,
        crops=(CropSpec(), CropSpec()), batch_size=4, seed=0, workers=2)
    batches = loader.batches(0, 10**9)
    print(int(next(batches).crops.sum()), flush=True)
    time.sleep(60)
if __name__ == "__main__":
    main()
"""


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize(
    ("method", "number"),
    [("fork", signal.SIGKILL), ("forkserver", signal.SIGINT)],
)
def test_workers_die_with_the_run_and_quietly(method: str, number: int, tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(script), str(_photos(tmp_path / "images")), method],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    workers = [int(pid) for pid in process.stdout.readline().split()]
    for pid in workers:
        os.kill(pid, signal.SIGTERM)  # as when a whole group is told to stop: ignored at first
    total = process.stdout.readline()
    if not total or not all(map(_alive, workers)):
        os.killpg(process.pid, signal.SIGKILL)  # nothing may outlive the test itself
        pytest.fail(process.communicate()[1])
    assert int(total) == int(next(_loader(tmp_path / "images", seed=0).batches(0, 1)).crops.sum())
    time.sleep(1)  # no batch is on its way: torch's workers report a receiver that vanishes
    (os.kill if number == signal.SIGKILL else os.killpg)(process.pid, number)
    until = time.monotonic() + 30
    while left := [pid for pid in (process.pid, *workers) if _alive(pid)]:
        if time.monotonic() > until:
            break
        time.sleep(0.1)
    if left:  # nothing may outlive the test itself
        os.killpg(process.pid, signal.SIGKILL)
    assert not left
    _, errors = process.communicate(timeout=30)
    expected = 0 if number == signal.SIGKILL else 1  # the main process's own
    assert errors.count("Traceback") == expected, errors
