"""The tasks of the comparison as this package does them: what runs in `byol pretrain`, no more."""

import time
from collections.abc import Callable
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.timing import Competitor, Cost
from byol.build import build_learner, build_loader
from byol.config import Config, with_options
from byol.data.files import FileLoader
from byol.data.loader import Batch, CropSpec, ResidentLoader
from byol.data.source import open_source
from byol.engine.device import autocast, pick_device, pick_precision
from byol.engine.gradients import finite, forward_backward, make_views
from byol.engine.optimizer import build_optimizer
from byol.learner import Byol
from byol.monitor import Held, Monitor
from byol.optim import set_learning_rate
from byol.recipes import build
from byol.resolve import resolve
from byol.viewspec import ViewSpec

DATA = {"channels": 3, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
FOREVER = 10**9  # steps


def _crop(view: ViewSpec) -> CropSpec:
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
        crops=(_crop(config.view1), _crop(config.view2)), batch_size=batch, seed=0,
    )  # fmt: skip
    return _views_of(loader, config)


def small(pixels: np.ndarray, batch: int) -> Callable[[], object]:
    """Both views of images (N, S, S, 3) that lie in memory."""
    config = with_options(build("small-32")[0], {"image_size": pixels.shape[1], **DATA})
    images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))  # (N, C, S, S)
    loader = ResidentLoader(
        images.to(pick_device(config.train.device)), torch.zeros(len(images), dtype=torch.int64),
        size=pixels.shape[1], crops=(_crop(config.view1), _crop(config.view2)), batch_size=batch,
        seed=0,
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


class Training:
    """Networks, optimizer and label monitor of a run, and its step."""

    def __init__(self, config: Config, classes: int = 10) -> None:
        self.config, self.device = config, pick_device(config.train.device)
        learner = build_learner(config).to(self.device)
        self.learner: Byol = learner.to(memory_format=torch.channels_last)
        compiled = torch.compile(self.learner) if config.train.compile else self.learner
        self.network: nn.Module = compiled  # type: ignore[assignment]
        self.optimizer = build_optimizer(config, self.learner)
        size = config.data.image_size
        held = Held(torch.zeros(2, 3, size, size), torch.zeros(2, dtype=torch.int64))
        width = int(learner.encoder.num_features)  # type: ignore[arg-type]
        self.monitor = Monitor(held, held, classes, width, self.device)

    def of_views(self, view1: Tensor, view2: Tensor, labels: Tensor) -> None:
        """A step from views (B, C, S, S) on."""
        with autocast(self.device, self.config.train.precision):
            loss, details = self.network(view1, view2, details=True)
        loss.backward()
        self._update(loss.detach(), details, labels)

    def of_batch(self, batch: Batch) -> None:
        """A step from crops on."""
        self._update(*forward_backward(self.config, self.network, batch, self.device))

    def _update(self, loss: Tensor, details: Any, labels: Tensor) -> None:
        set_learning_rate(self.optimizer, 0.1, 0.1)
        if bool(finite(loss, self.optimizer)):
            self.optimizer.step()
            self.learner.update_target(0.996)
            self.monitor.observe(details, labels)
        self.optimizer.zero_grad(set_to_none=True)


def step(network: str, size: int, batch: int, setting: str) -> Callable[[], object]:
    """A training step from two views on."""
    training = Training(configuration(network, size, batch, setting))
    views = torch.rand(2, batch, 3, size, size, device=training.device)
    view1, view2 = (v.contiguous(memory_format=torch.channels_last) for v in views)
    labels = torch.zeros(batch, dtype=torch.int64, device=training.device)
    return lambda: training.of_views(view1, view2, labels)


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
    training = Training(config)
    loader = build_loader(config, source, training.device)
    setup = time.perf_counter() - began
    done = 0

    def run(repeats: int) -> Cost:
        nonlocal done
        cpu, wall, count = spent(), time.perf_counter(), repeats * steps
        for batch in loader.batches(done, done + count):
            training.of_batch(batch)
        done += count
        if training.device.type == "cuda":
            torch.cuda.synchronize()
        return Cost((spent() - cpu) / count, (time.perf_counter() - wall) / count)

    return run, setup
