"""Where the time of both views goes: a JPEG at 224 pixels, and an image of 32 that lies in memory.

    python -m benchmarks.views [--rounds 7]

Stages of one image with both its views, each timed by itself, beside the floor, the bare decoding.
An operation is timed on every image; the whole does it only for those that draw it. Processor time
of one process that reads its files itself.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from torch import Tensor

from benchmarks import ours, pictures
from benchmarks.timing import Competitor, here, publish, race
from byol import views
from byol.data.decode import decode
from byol.data.files import FileLoader
from byol.data.loader import ResidentLoader
from byol.data.source import open_source
from byol.engine.memory import keep_freed
from byol.viewspec import T_PRIME, T, ViewSpec

PHOTOS, SMALL = 16, 256  # images a call
NOTHING = ViewSpec(flip=0, jitter=0, grey=0, blur=0, solarize=0)
EACH = {
    "no operation": {},
    "flip": {"flip": 1},
    "jitter": {"jitter": 1},
    "grey": {"grey": 1},
    "blur": {"blur": 1},
    "solarize": {"solarize": 1},
}
CROPS = (ours.crop_of(T), ours.crop_of(T_PRIME))


def decoding(files: list[Path]) -> Competitor:
    """The floor: the bytes of the files decoded, once each."""
    read = [file.read_bytes() for file in files]
    return here(lambda: [simplejpeg.decode_jpeg(data) for data in read], len(read))


def applying(crops: Tensor, specs: tuple[ViewSpec, ViewSpec], cut: bool = False) -> Competitor:
    """Both views of crops (B, 2, C, S, S) that are there."""
    index, epochs = np.arange(len(crops)), iter(range(10**9))

    def work() -> object:
        epoch = np.full(len(crops), next(epochs))
        return views.make_views(crops, specs, 0, epoch, index, cut)

    return here(work, len(crops))


def operations(crops: Tensor) -> dict[str, Competitor]:
    """Both views with one operation on every image, and as the paper draws them."""
    single = {name: replace(NOTHING, **changes) for name, changes in EACH.items()}
    both = {name: applying(crops, (spec, spec)) for name, spec in single.items()}
    return {**both, "as drawn": applying(crops, (T, T_PRIME))}


def photographs(rounds: int, folder: Path) -> None:
    """JPEG files at 224 pixels."""
    files = pictures.photographs(folder, PHOTOS)
    encoded = [file.read_bytes() for file in files]
    loader = FileLoader(
        open_source(str(folder)), channels=3, value_range=(0, 255), size=224, crops=CROPS,
        batch_size=PHOTOS, seed=0,
    )  # fmt: skip
    batches = loader.batches(0, ours.FOREVER)
    stages = {
        "bare decoding": decoding(files),
        "decoding": here(lambda: [decode(file, 3) for file in encoded], PHOTOS),
        "decoding and two crops": here(lambda: next(batches), PHOTOS),
        **operations(next(batches).crops),
        "whole": here(ours.photos(folder, PHOTOS, 224), PHOTOS),
    }
    size = round(sum(map(len, encoded)) / PHOTOS / 1000)
    title = f"Both views at 224 pixels of a JPEG of 500 x 375 and {size} KB, by stage"
    show("views-224", title, stages, "bare decoding", rounds)


def small(rounds: int) -> None:
    """Images of 32 pixels in memory."""
    pixels, _ = pictures.small(SMALL)
    images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))  # (N, C, S, S)
    loader = ResidentLoader(
        images, torch.zeros(SMALL, dtype=torch.int64), size=32, crops=CROPS, batch_size=SMALL,
        seed=0,
    )  # fmt: skip
    batches = loader.batches(0, ours.FOREVER)
    stages = {
        "two crops": here(lambda: next(batches), SMALL),
        **operations(next(batches).crops),
        "whole": here(ours.small(pixels, SMALL), SMALL),
    }
    title = f"Both views of an image of 32 pixels that lies in memory ({pictures.SOURCE}), by stage"
    show("views-32", title, stages, "whole", rounds)


def show(name: str, title: str, stages: dict[str, Competitor], base: str, rounds: int) -> None:
    """Race and publish."""
    found = race(stages, rounds, seconds=0.2)
    publish(name, title, found, per="image", base=base, command="python -m benchmarks.views")


def main() -> None:
    """Tables and docs/results/speed/views-*.json."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    keep_freed()
    with tempfile.TemporaryDirectory() as folder:
        photographs(rounds, Path(folder))
    small(rounds)


if __name__ == "__main__":
    main()
