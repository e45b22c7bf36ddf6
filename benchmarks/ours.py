"""The tasks of the comparison as this package does them: what runs in `byol pretrain`, no more."""

import time
from collections.abc import Callable
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from typing import Any

import numpy as np
import torch

from benchmarks.step import our_step, prepare
from benchmarks.timing import Competitor, Cost
from byol.build import build_learner, build_loader
from byol.config import Config
from byol.data.files import FileLoader
from byol.data.loader import CropSpec, ResidentLoader
from byol.data.source import open_source
from byol.engine.device import pick_device, pick_precision
from byol.engine.gradients import make_views, views_of
from byol.engine.processes import ALONE
from byol.options import with_options
from byol.recipes import build
from byol.resolve import resolve
from byol.viewspec import ViewSpec

DATA = {"channels": 3, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
FOREVER = 10**9  # steps
Work = Callable[[], None]


def crop_of(view: ViewSpec) -> CropSpec:
    """Where a view may be cut."""
    return CropSpec(
        (view.crop_area_min, view.crop_area_max), (view.crop_ratio_min, view.crop_ratio_max)
    )


def _views_of(loader: Any, config: Config) -> Callable[[], object]:
    """Makes both views of the next batch."""
    batches, device = loader.batches(0, FOREVER), pick_device(config.train.device)
    return lambda: make_views(config, next(batches), device)


def photos(folder: Path, batch: int, size: int) -> Callable[[], object]:
    """Both views of photographs, decoded anew each time."""
    config = with_options(build("photos-224")[0], {"image_size": size, **DATA})
    loader = FileLoader(
        open_source(str(folder)), channels=3, value_range=(0, 255), size=size,
        crops=(crop_of(config.view1), crop_of(config.view2)), batch_size=batch, seed=0,
    )  # fmt: skip
    return _views_of(loader, config)


def small(pixels: np.ndarray, batch: int) -> Callable[[], object]:
    """Both views of images (N, S, S, 3) that lie in memory."""
    config = with_options(build("small-32")[0], {"image_size": pixels.shape[1], **DATA})
    images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))  # (N, C, S, S)
    loader = ResidentLoader(
        images.to(pick_device(config.train.device)), torch.zeros(len(images), dtype=torch.int64),
        size=pixels.shape[1], crops=(crop_of(config.view1), crop_of(config.view2)),
        batch_size=batch, seed=0,
    )  # fmt: skip
    return _views_of(loader, config)


def configuration(network: str, size: int, batch: int, setting: str, stem: str = "large") -> Config:
    """setting: fp32 or bf16 with the paper's heads, or shipped."""
    recipe = "small-32" if size <= 64 else "photos-224"
    values = {"model": network, "image_size": size, "batch_size": batch, "stem": stem, **DATA}
    if setting == "shipped":
        return with_precision(with_options(build(recipe)[0], values))
    heads = {"hidden_size": 4096, "projection_size": 256, "precision": setting}
    return with_options(build(recipe)[0], {**values, **heads})


def with_precision(config: Config) -> Config:
    """The precision that a run would choose."""
    chosen = pick_precision(pick_device(config.train.device), config.train.precision)
    return with_options(config, {"precision": chosen})


def step(network: str, size: int, batch: int, setting: str) -> tuple[Work, Work]:
    """A training step from two views on, and its floor: its bare convolutions and products."""
    config = configuration(network, size, batch, setting)
    return prepare(config, pick_device(config.train.device))


def spent() -> float:
    """Processor seconds of this process and of its children that have ended."""
    own, ended = getrusage(RUSAGE_SELF), getrusage(RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime


def train(
    folder: Path, network: str, size: int, batch: int, workers: int, steps: int
) -> tuple[Competitor, float]:
    """Steps from image files on, all as shipped, and the seconds that its set-up took: opening the
    folder, measuring the images and decoding them once."""
    began = time.perf_counter()
    source = open_source(str(folder))
    asked = {"model": network, "batch_size": batch, "workers": workers, "image_size": size}
    config = with_precision(resolve(source, str(folder), None, asked)[0])
    device = pick_device(config.train.device)
    learner = build_learner(config).to(device).to(memory_format=torch.channels_last)
    training = our_step(config, learner, device)
    loader = build_loader(config, source, device)
    setup = time.perf_counter() - began
    done = 0

    def run(repeats: int) -> Cost:
        nonlocal done
        cpu, wall, count = spent(), time.perf_counter(), repeats * steps
        for batch in loader.batches(done, done + count):
            found = training.gradients(views_of(config, batch, device))
            _, tau = training.rates(100)
            if ALONE.any([found.is_bad])[0]:
                raise RuntimeError("a step is not finite")
            training.update(found, tau)
        done += count
        if device.type == "cuda":
            torch.cuda.synchronize()
        return Cost((spent() - cpu) / count, (time.perf_counter() - wall) / count)

    return run, setup
