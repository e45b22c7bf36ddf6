"""What the named choices of speed over exactness save, and how far off they are.

    python -m benchmarks.choices [--rounds 7]
    python -m benchmarks.choices --seeds 2    what the network learns with the second

`--blur-taps 3-sigma`: the blur alone and both views of crops of 224 pixels. `--jpeg-scale reduced`:
both crops from JPEG files of two sizes. Processor time of one process, each choice and its exact
counterpart in turns. The pictures are drawn from noise that has as much detail in single pixels as
a photograph may have: the hardest case for a reduced scale. Learning is tried where a few minutes
show something: the embedded textures as JPEG files of four times their side.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import byol
from benchmarks import pictures
from benchmarks.timing import HOME, here, publish, race
from benchmarks.views import CROPS, NOTHING, PHOTOS, applying
from byol import views
from byol.data.embedded import TEXTURES, textures
from byol.data.files import FileLoader
from byol.data.source import open_source
from byol.engine.device import environment
from byol.engine.memory import keep_freed
from byol.viewspec import T_PRIME, T

SIDE = 224  # pixels of a crop
LARGE = 4000, 3000  # pixels of a large file
EPOCHS = 8  # of the demo's 30
COMMAND = "python -m benchmarks.choices"


def loader(folder: Path, count: int, at_least: int | None) -> FileLoader:
    """Both crops of the photographs of a folder."""
    return FileLoader(
        open_source(str(folder)), channels=3, value_range=(0, 255), size=SIDE, crops=CROPS,
        batch_size=count, seed=0, at_least=at_least,
    )  # fmt: skip


def apart(exact: Tensor, other: Tensor) -> str:
    """The difference of two tensors of levels."""
    levels = (exact.double() - other.double()).abs()
    return f"{levels.mean():.2g} levels of 255 in the mean, {levels.max():.2g} at most"


def blur(rounds: int, small: Path) -> None:
    """The cut at 3 sigma."""
    crops = next(loader(small, PHOTOS, None).batches(0, 1)).crops
    alone = replace(NOTHING, blur=1)
    cases = {"blur alone": (alone, alone), "as drawn": (T, T_PRIME)}
    stages = {
        f"{name}, {how}": applying(crops, specs, how == "3-sigma")
        for name, specs in cases.items()
        for how in ("exact", "3-sigma")
    }
    given = (crops, (T, T_PRIME), 0, np.zeros(PHOTOS, np.int64), np.arange(PHOTOS))
    exact, other = (255 * torch.stack(views.make_views(*given, cut)) for cut in (False, True))
    publish(
        "choices-blur", f"Both views of crops of {SIDE} pixels", race(stages, rounds, seconds=0.2),
        per="image", base="as drawn, exact", command=COMMAND,
        notes=[f"as drawn, the views differ by {apart(exact, other)}"],
    )  # fmt: skip


def scale(rounds: int, folders: dict[str, tuple[Path, int]]) -> None:
    """JPEGs at a reduced scale; folders and their numbers of files by the size of their images."""
    stages, notes = {}, []
    for size, (folder, count) in folders.items():
        first = []
        for how, at_least in (("full", None), ("reduced", 2 * SIDE)):
            batches = loader(folder, count, at_least).batches(0, 10**9)
            first.append(next(batches).crops)
            stages[f"{size}, {how}"] = here(partial(next, batches), count)
        size_of = sum(file.stat().st_size for file in folder.iterdir()) / count / 1e6
        notes.append(f"{size}, {size_of:.2g} MB: the crops differ by {apart(*first)}")
    publish(
        "choices-jpeg", f"Two crops of {SIDE} pixels from a JPEG",
        race(stages, rounds, seconds=0.2), per="image", base=next(iter(stages)), command=COMMAND,
        notes=notes,
    )  # fmt: skip


def save(image: np.ndarray, file: Path, size: tuple[int, int]) -> None:
    """A JPEG of so many pixels (width, height)."""
    resized = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    resized.save(file, quality=90)


def enlarged(folder: Path, count: int, seed: int) -> None:
    """Textures as JPEG files of 128 pixels, one folder a class."""
    for i, (image, label) in enumerate(zip(*textures(count, seed), strict=True)):
        home = folder / TEXTURES[label]
        home.mkdir(parents=True, exist_ok=True)
        save(image, home / f"{i:05}.jpg", (128, 128))


def learning(seeds: int, home: Path) -> None:
    """kNN after a short demo, JPEGs read whole and at half their size."""
    enlarged(home / "data" / "train", 4000, 100)
    enlarged(home / "data" / "test", 1000, 1000)
    rows = []
    for seed in range(seeds):
        for how in ("full", "reduced"):
            shown = {"jpeg_scale": how, "seed": seed, "epochs": EPOCHS}
            out = home / f"{how}-{seed}"
            result = byol.pretrain(
                str(home / "data"), out=out, recipe="demo", final_linear=False, workers=0, **shown
            )
            rows.append({"options": shown, "result": result})
    machine = {k: v for k, v in environment().items() if k != "command"}
    table = {"environment": machine, "command": f"{COMMAND} --seeds {seeds}", "rows": rows}
    (HOME / "results" / "choices-knn.json").write_text(json.dumps(table, indent=1) + "\n")


def main() -> None:
    """Tables and docs/results/speed/choices-*.json; or docs/results/choices-knn.json."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seeds", type=int, help="train with so many seeds instead of timing")
    options = parser.parse_args()
    rounds = options.rounds
    torch.set_num_threads(1)
    keep_freed()
    with tempfile.TemporaryDirectory() as home:
        if options.seeds:
            learning(options.seeds, Path(home))
            return
        small, sharp, smooth = (Path(home) / name for name in ("small", "sharp", "smooth"))
        for folder in (small, sharp, smooth):
            folder.mkdir()
        pictures.photographs(small, PHOTOS)
        draw = np.random.default_rng(0)
        save(pictures.natural(draw, *LARGE[::-1]), sharp / "0.jpg", LARGE)
        save(pictures.natural(draw, 375, 500), smooth / "0.jpg", LARGE)
        blur(rounds, small)
        folders = {"4000 x 3000": (sharp, 1), "the same, enlarged from 500 x 375": (smooth, 1)}
        scale(rounds, {**folders, "500 x 375": (small, PHOTOS)})


if __name__ == "__main__":
    main()
