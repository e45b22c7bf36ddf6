"""Object detection by Faster R-CNN on the encoder (paper appendix D.5).

The paper: R50-C4, trained on VOC2007 trainval and scored on test; images resized so that the
longest edge is between 480 and 1,024 pixels, no other augmentation; asynchronous SGD on 9 workers,
1.5 M steps at 1e-3, a tenth of it from 1 M and a hundredth from 1.2 M. Ours is synchronous, shorter
by default, and divides the rate at the same shares. The appendix calls the representation frozen,
the main text fine-tuned: `frozen` chooses.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from byol.data.boxes import BoxSource, BoxSplits, open_boxes
from byol.errors import UserError
from byol.networks.detector import Detector
from byol.protocols import Detect
from byol.tasks import precision
from byol.tasks.boxpicture import SHOWN, draw_boxes
from byol.tasks.features import calibrate
from byol.tasks.precision import METRICS, Boxes
from byol.tasks.scenes import Resize, Scenes, all_scenes, training_scenes
from byol.tasks.subject import Subject, untrained
from byol.tasks.training import train, unless_diverged, work_folder

CALIBRATED = 40  # images that give an untrained network its norm statistics

Say = Callable[[str], None]


def evaluate(
    subject: Subject, data: Any, options: Detect, folder: Path | None, say: Say
) -> dict[str, Any]:
    """`rows` of METRICS in percent: "trained", and with baselines "supervised" (the untrained
    network trained whole) and "untrained" (it frozen); `classes` of each row.

    data: a path that open_boxes takes. Raises UserError as it does, and for options that cannot be.
    """
    precision.require()
    _check(options)
    splits = open_boxes(data, options.eval_data, options.split)
    _tell(splits, say)
    rows: dict[str, dict[str, float]] = {}
    tables: dict[str, precision.Table] = {}
    for name, (start, frozen) in _starts(subject, splits.train, options).items():
        said = (asdict(options), str(data))
        work = work_folder(folder, f"detect-{name}", start.encoder, *said)
        make = partial(fitted, start, splits.train, options, frozen, name, work)
        detector = unless_diverged(make, start is not subject, say)
        if detector is None:
            continue
        bad: list[str] = []
        found, true = detections(detector, start, splits.test, options, bad)
        rows[name], tables[name] = precision.average_precision(found, true, splits.train.names)
        say(f"{name}: " + ", ".join(f"{m} {value:.1f} %" for m, value in rows[name].items()))
        if start is subject:
            _say_table(tables[name], say)
            if bad:
                say(f"{len(bad)} images could not be read and do not count, such as {bad[0]}")
            if folder:
                _picture(detector, subject, splits, options, folder / "detect.png")
    return {
        "rows": rows, "metrics": METRICS, "classes": tables,
        "images": {"train": len(splits.train), "test": len(splits.test)},
        "unreadable_images": bad, "skipped_boxes": splits.log.skipped,
        "clipped_boxes": splits.log.clipped,
    }  # fmt: skip


def fitted(
    start: Subject, source: BoxSource, options: Detect, frozen: bool, title: str, work: Path | None
) -> Detector:
    """A detector on the encoder of `start`, trained on `source`, in evaluation mode."""
    device, seed = start.device, options.seed
    with _drawn(seed, device):
        detector = Detector(
            start.encoder, len(source.names), options.neck, options.anchors, options.proposals,
            options.rois, options.roi_size, options.norms == "train", frozen, start.precision,
        ).to(device)  # fmt: skip
    weights = [p for p in detector.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(weights, options.lr, momentum=0.9)
    resize = Resize(options.min_side, options.max_side, options.flip)

    def batches(step: int) -> Iterator[Scenes]:
        yield from training_scenes(
            source, start, resize, options.batch_size, seed, step, options.steps
        )

    def loss(batch: Scenes) -> Tensor:
        with _drawn((seed << 32) + batch.step + 1, device):  # which proposals train
            parts = detector.losses(batch.images, batch.boxes)
        return torch.stack(list(parts.values())).sum()

    detector.train()
    train(
        detector, optimizer, batches, loss, lambda step: rate(step / options.steps),
        options.steps, options.batch_size, f"detect, {title}", work,
    )  # fmt: skip
    return detector.eval()


def rate(done: float) -> float:
    """Factor of the learning rate when a share `done` of the steps is done."""
    return 1.0 if done < 2 / 3 else 0.1 if done < 0.8 else 0.01


def detections(
    detector: Detector, subject: Subject, source: BoxSource, options: Detect, bad: list[str]
) -> tuple[list[Boxes], list[Boxes]]:
    """Found and true boxes of each readable image, in its own pixels, on the CPU."""
    found: list[Boxes] = []
    true: list[Boxes] = []
    for batch in all_scenes(source, subject, options.max_side, options.batch_size, bad):
        for boxes, scale, index in zip(
            detector.detect(batch.images), batch.scales, batch.index, strict=True
        ):
            own = {name: value.cpu() for name, value in boxes.items()}
            found.append({**own, "boxes": own["boxes"] / scale})
            known = source.boxes[index]
            true.append({
                "boxes": torch.from_numpy(known.corners), "labels": torch.from_numpy(known.classes),
                "iscrowd": torch.from_numpy(known.ignored).long(),
            })  # fmt: skip
    return found, true


@contextmanager
def _drawn(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, torch's global generators begin at `seed`; outside they are as before."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _starts(
    subject: Subject, source: BoxSource, options: Detect
) -> dict[str, tuple[Subject, bool]]:
    """Row to the encoder that it starts from, and whether that stays frozen.

    Norm statistics of the untrained network are measured on training images: those that it is
    initialised with would handicap it where they stay.
    """
    rows = {subject.name: (subject, options.frozen)}
    if options.baselines:
        fresh = untrained(subject, options.seed)
        scenes = all_scenes(source, subject, options.max_side, 1)
        few = ((s.images[0][None], s.scales[0]) for s in scenes)
        calibrate(fresh.encoder, few, CALIBRATED)
        rows |= {"supervised": (fresh, False), "untrained": (fresh, True)}
    return rows


def _check(options: Detect) -> None:
    for name in ("steps", "batch_size", "proposals", "rois", "roi_size", "min_side"):
        if getattr(options, name) < 1:
            raise UserError(f"{name} is {getattr(options, name)}; it must be 1 or more")
    if options.max_side < options.min_side:
        raise UserError(
            f"max_side is {options.max_side}, less than min_side, {options.min_side}: the longest "
            "edge is drawn between the two"
        )
    if not options.anchors or min(options.anchors) <= 0 or options.lr <= 0:
        raise UserError(
            f"anchors are {options.anchors} and lr is {options.lr}; they must be above 0"
        )


def _tell(splits: BoxSplits, say: Say) -> None:
    say(splits.choice)
    for what, log in (("left out", splits.log.skipped), ("clipped", splits.log.clipped)):
        if log:
            say(f"{len(log)} boxes or annotations are {what}, such as {log[0]}")


def _say_table(table: precision.Table, say: Say) -> None:
    width = max(map(len, [*table, "class"]))
    say(f"  {'class':{width}}   boxes " + " ".join(f"{metric:>9}" for metric in METRICS))
    for name, row in table.items():
        numbers = " ".join(f"{row[metric]:9.1f}" for metric in METRICS)
        say(f"  {name:{width}} {row['boxes']:7.0f} {numbers}")


def _picture(
    detector: Detector, subject: Subject, splits: BoxSplits, options: Detect, path: Path
) -> None:
    """The first images of the test split, true boxes beside those found."""
    scenes = next(all_scenes(splits.test, subject, options.max_side, SHOWN))
    draw_boxes(
        scenes.images, scenes.boxes, detector.detect(scenes.images), splits.train.names, path
    )
