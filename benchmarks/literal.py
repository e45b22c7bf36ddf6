"""BYOL written for reading: an image at a time in float64, a weight at a time, and no trick.

Formulas of the paper's appendix B (views) and section 3 (loss, LARS, moving average). It takes the
same draws and first weights as the fast path, so their inputs agree within rounding to 8 bits, and
what they learn must agree within the noise between seeds.
"""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import ours, pictures
from benchmarks.timing import HOME
from byol import recipes, schedules, views
from byol.build import build_learner
from byol.config import Config
from byol.data.loader import CropSpec, ResidentLoader, crop_boxes, positions
from byol.engine.device import environment
from byol.engine.gradients import make_views, over_processes, views_of
from byol.engine.optimizer import build_optimizer
from byol.engine.processes import ALONE
from byol.engine.step import Step
from byol.learner import Byol
from byol.options import with_options
from byol.tasks.knn import knn
from byol.viewspec import ViewSpec

QUERIES = 1000


def resampled(line: np.ndarray, size: int) -> np.ndarray:
    """(L, ...) to (size, ...): the cubic kernel with a = -1/2, widened when shrinking."""
    length = len(line)
    scale = length / size
    out = np.empty((size, *line.shape[1:]))
    for i in range(size):
        distance = np.abs(np.arange(length) + 0.5 - (i + 0.5) * scale) / max(scale, 1)
        near = 1.5 * distance**3 - 2.5 * distance**2 + 1
        far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
        weight = np.where(distance <= 1, near, np.where(distance < 2, far, 0))
        out[i] = np.tensordot(weight / weight.sum(), line, 1)
    return out


def crop(image: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """(H, W, 3) uint8 to (size, size, 3) in [0, 1], of 8 bits as a resized file would be."""
    top, left, height, width = box
    cut = image[top : top + height, left : left + width].astype(np.float64)
    out = resampled(resampled(cut, size).swapaxes(0, 1), size).swapaxes(0, 1)
    return np.floor(np.clip(out + 0.5, 0, 255)) / 255


def turned(image: np.ndarray, saturation: float, hue: float) -> np.ndarray:
    """Saturation multiplied, hue shifted (in turns), through HSV."""
    from matplotlib.colors import hsv_to_rgb, rgb_to_hsv

    h, s, v = np.moveaxis(rgb_to_hsv(image), -1, 0)
    changed: np.ndarray = hsv_to_rgb(
        np.stack(((h + hue) % 1, np.minimum(s * saturation, 1), v), -1)
    )
    return changed


def view(image: np.ndarray, spec: ViewSpec, seed: int, visit: int, i: int, v: int) -> np.ndarray:
    """One view (S, S, 3) of a crop in [0, 1], by the draws of image i at this visit."""
    drawn = views.draw(spec, seed, np.array([visit]), np.array([i]), v)
    x = image[:, ::-1] if drawn.flip[0] else image
    shift, contrast, saturation, hue = drawn.jitter_params[0]
    for operation in drawn.order[0] if drawn.jitter[0] else ():
        if operation == 0:
            x = x + shift
        elif operation == 1:
            mean = x.mean((0, 1))
            x = (x - mean) * contrast + mean
        else:
            x = turned(x, saturation, 0) if operation == 2 else turned(x, 1, hue)
        x = np.clip(x, 0, 1)
    if drawn.grey[0]:
        x = np.repeat((x @ np.array([0.2989, 0.5870, 0.1140]))[..., None], 3, 2)
    if drawn.solarize[0]:
        x = np.where(x < drawn.threshold[0], x, 1 - x)
    return np.clip(x, 0, 1)


def batches(config: Config, pixels: np.ndarray, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Both views (B, 3, S, S) of each step. The recipe's views have no blur."""
    size, seed, specs = config.data.image_size, config.train.seed, (config.view1, config.view2)
    assert not config.view1.blur and not config.view2.blur
    for step in range(steps):
        both: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        visits, places = positions(seed, len(pixels), config.optim.batch_size, step)
        for visit, i in zip(visits, places, strict=True):
            for v, spec in enumerate(specs):
                height, width, visited, place = (
                    np.array([n]) for n in (*pixels.shape[1:3], visit, i)
                )
                where = ours.crop_of(spec)
                box = crop_boxes(height, width, seed, visited, place, v, where)[0]
                both[v].append(view(crop(pixels[i], box, size), spec, seed, visit, i, v))
        view1, view2 = (torch.tensor(np.stack(x)).permute(0, 3, 1, 2).float() for x in both)
        yield view1.contiguous(), view2.contiguous()


def forward(learner: Byol, view1: Tensor, view2: Tensor) -> Tensor:
    """|n(q1) - n(z2')|^2 + |n(q2) - n(z1')|^2, mean over the batch (equations 2 and 3)."""
    total = torch.tensor(0.0)
    for seen, faced in ((view1, view2), (view2, view1)):
        prediction = learner.predictor(learner.projector(learner.encoder(seen)))
        with torch.no_grad():
            target = learner.target_projector(learner.target_encoder(faced))
        difference = F.normalize(prediction, dim=1) - F.normalize(target, dim=1)
        total = total + difference.square().sum(1).mean()
    return total


def train_literally(config: Config, pixels: np.ndarray) -> Byol:
    """Every weight by itself: gradient, decay, trust ratio, momentum, rate; then the average."""
    learner, optim = build_learner(config), config.optim
    total, warmup = config.steps(len(pixels))
    momenta: dict[str, Tensor] = {}
    for step, (view1, view2) in enumerate(batches(config, pixels, total)):
        learner.zero_grad()
        forward(learner, view1, view2).backward()  # type: ignore[no-untyped-call]
        rate = schedules.learning_rate(step, total, warmup, optim.base_lr, optim.batch_size)
        tau = schedules.tau(step, total, optim.tau_base)
        with torch.no_grad():
            for name, weight in learner.named_parameters():
                if weight.grad is None:
                    continue
                update = weight.grad
                if weight.ndim > 1:
                    update = update + optim.weight_decay * weight
                    if weight.norm() > 0 and update.norm() > 0:
                        update = update * optim.trust_coefficient * weight.norm() / update.norm()
                momenta[name] = optim.momentum * momenta.get(name, 0) + update
                weight.sub_(rate * momenta[name])
            averaged = dict(learner.named_parameters())
            for name, weight in averaged.items():
                if name.startswith("target_"):
                    online = averaged[name.removeprefix("target_")]
                    weight.copy_(tau * weight + (1 - tau) * online)
    return learner


def fast_loader(config: Config, pixels: np.ndarray) -> ResidentLoader:
    """The loader of a run on these images."""
    images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
    crops: tuple[CropSpec, ...] = tuple(ours.crop_of(x) for x in (config.view1, config.view2))
    return ResidentLoader(
        images, torch.zeros(len(images), dtype=torch.int64), size=config.data.image_size,
        crops=crops, batch_size=config.optim.batch_size, seed=config.train.seed,
    )  # fmt: skip


def train_fast(config: Config, pixels: np.ndarray) -> Byol:
    """What a run does."""
    learner = build_learner(config).to(memory_format=torch.channels_last)
    total, warmup = config.steps(len(pixels))
    device, optimizer = torch.device("cpu"), build_optimizer(config, learner)
    network = over_processes(config, learner, device, ALONE)
    training = Step(config, learner, network, optimizer, None, total, warmup)
    for step, batch in enumerate(fast_loader(config, pixels).batches(0, total)):
        found = training.gradients(views_of(config, batch, device))
        training.update(found, training.rates(step)[1])
    return learner


@torch.no_grad()
def accuracy(learner: Byol, pixels: np.ndarray, labels: np.ndarray, bank: int) -> float:
    """kNN (k = 20) of the images after the first `bank` by those."""
    learner.eval()
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255  # (N, 3, S, S)
    features = torch.cat([learner.encoder(part).float() for part in images.split(500)])
    truth = torch.from_numpy(labels)
    found = knn(features[:bank], truth[:bank], features[bank:], truth[bank:], 10)
    return found["top1"]


def compare(epochs: float, images: int, model: str, seeds: int, batch: int) -> None:
    """Train both ways on the first images, seed by seed; print kNN, write literal.json."""
    pixels, labels = pictures.small(images + QUERIES)
    config, _ = recipes.build("small-32", images, epochs, batch)
    config = ours.with_precision(
        with_options(config, {"model": model, "device": "cpu", "zero_gamma": "false", **ours.DATA})
    )
    first = next(fast_loader(config, pixels[:images]).batches(0, 1))
    fast = torch.stack(make_views(config, first, torch.device("cpu")))
    difference = (fast - torch.stack(next(batches(config, pixels[:images], 1)))).abs()
    print(f"views differ by {255 * difference.max():.3f} / 255 at most", flush=True)
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        chosen = with_options(config, {"seed": seed})
        row: dict[str, Any] = {"seed": seed}
        for name, train in (("fast", train_fast), ("literal", train_literally)):
            row[name] = accuracy(train(chosen, pixels[:images]), pixels, labels, images)
        row["untrained"] = accuracy(build_learner(chosen), pixels, labels, images)
        rows.append(row)
        print(json.dumps(row), flush=True)
    means = {name: float(np.mean([row[name] for row in rows])) for name in ("fast", "literal")}
    print(f"mean kNN: fast {means['fast']:.1f} %, literal {means['literal']:.1f} %")
    result = {
        "environment": {k: v for k, v in environment().items() if k != "command"},
        "command": f"python -m benchmarks.end_to_end --literal {epochs:g} --images {images} "
        f"--model {model} --seeds {seeds} --batch {batch}",
        "precision": config.train.precision,
        "views_differ": float(255 * difference.max()),
        "rows": rows,
    }
    target = HOME / "results" / "speed" / "literal.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n")
