"""Transfer to other classification sets (paper appendix D): logistic regression, or fine-tuning.

Linear: frozen features of the centre crop whose side is the shorter one, no augmentation; the
strength of the penalty is chosen on validation images, then all training and validation images
are fitted again. Fine-tuning: 20,000 steps at each learning rate and weight decay (divided by the
rate), chosen and trained again in the same way.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from byol import metrics
from byol.data.benchmarks import BENCHMARKS, Task, open_benchmark
from byol.data.layouts import TaggedFiles
from byol.data.prepared import prepare_labelled
from byol.data.source import Joined, Source, Subset, open_splits, split_names
from byol.errors import UserError, unknown
from byol.protocols import Transfer
from byol.tasks.extraction import frozen
from byol.tasks.features import baseline, open_labelled
from byol.tasks.finetune import norm_momentum, trial
from byol.tasks.logistic import STRENGTHS, fit, path
from byol.tasks.papertable import PAPER, Row, paper, table
from byol.tasks.subject import Subject, key, untrained
from byol.tasks.subsets import held_out, orders
from byol.tasks.training import remembered, watched

LRS = tuple(10 ** (-4 + i / 2) for i in range(7))
WEIGHT_DECAYS = (0.0, *(10 ** (-6 + i / 2) for i in range(7)))
METRICS = {**metrics.SUMMARY, "map11": "11-point mean average precision in %"}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Features:
    """Frozen features (N, D), and labels (N,) or for several a row (N, K)."""

    rows: Tensor
    targets: Tensor

    def __add__(self, other: "Features") -> "Features":
        parts = (self.rows, other.rows), (self.targets, other.targets)
        return Features(*(torch.cat(pair) for pair in parts))


def evaluate(
    subject: Subject, data: Any, options: Transfer, folder: Path | None, say: Say
) -> dict[str, Any]:
    """Rows of figures in percent: of the data given, or one a set of the paper's."""
    _check(options)
    if not (options.all or options.set):
        task = own_task(data, options, say)
        found = _rows(subject, task, options, folder, say)
        for name, row in found.items():
            say(f"{name}: " + ", ".join(f"{key} {row[key]:.2f} %" for key in METRICS if key in row))
        named = {key: METRICS[key] for key in METRICS if key in found[subject.name]}
        return {"rows": found, "metrics": named, "sizes": _sizes(task)}
    if not isinstance(data, str | Path):
        raise UserError("--set and --all need a folder that holds the sets as the data")
    sets, sizes, missing = _benchmarks(subject, Path(data).expanduser(), options, folder, say)
    subjects = next(iter(sets.values()))
    for line in table(sets, options.mode):
        say(line)
    return {
        "rows": {
            row: {name: found[row][BENCHMARKS[name].metric] for name, found in sets.items()}
            for row in subjects
        },
        "metrics": {
            name: f"{BENCHMARKS[name].title}: {METRICS[BENCHMARKS[name].metric]}" for name in sets
        },
        "paper": {name: dict(zip(PAPER, paper(name, options.mode), strict=False)) for name in sets},
        "chosen": sets,
        "sizes": sizes,
        "missing": missing,
    }


def _check(options: Transfer) -> None:
    if options.all and options.set:
        raise UserError("--set and --all were both given; give one of them")
    if options.set and options.set not in BENCHMARKS:
        raise unknown("set", options.set, BENCHMARKS)
    for name, least in (("steps", 1), ("batch_size", 2)):
        if getattr(options, name) < least:
            raise UserError(f"{name} is {getattr(options, name)}; it must be {least} or more")
    if options.lrs is not None and not all(rate > 0 for rate in options.lrs or (0,)):
        raise UserError(f"lrs is {options.lrs}; learning rates above 0 are expected")
    decays = (0,) if options.weight_decays is None else options.weight_decays
    if not decays or min(decays) < 0:
        raise UserError(f"weight_decays is {options.weight_decays}; 0 or more is expected")


def own_task(data: Any, options: Transfer, say: Say) -> Task:
    """Labelled data of the user's own; without validation images a tenth of each class is drawn."""
    prepared = open_labelled(data, options.eval_data, options.seed, say)
    train, test = prepared.bank, prepared.queries
    names = split_names(data)
    if "val" in names and ("test" in names or options.eval_data is not None):
        given = open_splits({"train": train, "test": open_splits(data, None, "train:val").test})
        both = prepare_labelled(given, options.seed, say)
        return Task(both.bank, both.queries, test, both.classes, "top1")
    assert train.labels is not None
    held = held_out(orders(train.labels, options.seed))
    if not len(held):
        raise UserError(
            f"every class of {train.name} has one image, so none is left to choose settings on: "
            "give more images, or a split called val"
        )
    rest = np.setdiff1d(np.arange(len(train)), held)
    say(f"{len(held):,} of the training images, a tenth of each class, choose the settings")
    return Task(Subset(train, rest), Subset(train, held), test, prepared.classes, "top1")


def _benchmarks(
    subject: Subject, root: Path, options: Transfer, folder: Path | None, say: Say
) -> tuple[dict[str, dict[str, Row]], dict[str, Any], list[str]]:
    """For each set that is there: rows and sizes; and why the others are not."""
    found: dict[str, dict[str, Row]] = {}
    sizes: dict[str, Any] = {}
    missing: list[str] = []
    for name in BENCHMARKS if options.all else [options.set or ""]:
        try:
            task = open_benchmark(name, root, options.download, options.seed, say)
            found[name] = _rows(subject, task, options, folder, say)
        except UserError as why:
            if not options.all:
                raise
            missing.append(str(why))
            say(missing[-1])
            continue
        sizes[name] = _sizes(task)
        figures = ", ".join(f"{row} {r[task.metric]:.2f} %" for row, r in found[name].items())
        say(f"{BENCHMARKS[name].title}: {figures}")
    if not found:
        raise UserError(f"none of the paper's sets can be read from {root}: see the lines above")
    return found, sizes, missing


def _sizes(task: Task) -> dict[str, int]:
    parts = {"train": task.train, "valid": task.valid, "test": task.test}
    return {name: len(part) for name, part in parts.items()} | {"classes": task.classes}


def _rows(
    subject: Subject, task: Task, options: Transfer, folder: Path | None, say: Say
) -> dict[str, Row]:
    work = folder / "work" / "transfer" if folder else None
    if options.mode == "linear":
        subjects = [subject]
        if options.baselines:
            subjects.append(baseline(subject, task.train, options.seed))

        def one(each: Subject) -> Row:
            shown = (task.classes, task.valid.name, task.test.name, len(task.test))
            memory = work and work / f"{key(each, task.train, ('linear', *shown))}.json"
            return remembered(memory, lambda: linear(each, task, say))

        return {each.name: one(each) for each in subjects}
    if isinstance(task.train, TaggedFiles):
        raise UserError(
            f"{task.train.name} has several classes an image, for which there is no fine-tuning "
            "here: use --mode linear"
        )
    subjects = [subject]
    if options.baselines:
        subjects.append(untrained(subject, options.seed, "supervised"))
    return {each.name: finetuned(each, task, options, work, say) for each in subjects}


def linear(subject: Subject, task: Task, say: Say = lambda line: None) -> Row:
    """Test figures in percent of the regression, and the strength `C` that was chosen."""
    train, valid, test = (_features(subject, part) for part in (task.train, task.valid, task.test))
    along = path(train.rows, train.targets, task.classes)
    title = f"{subject.name}, strengths of the penalty"
    scored = [
        (_figures(found.scores(valid.rows), valid.targets)[task.metric], -strength)
        for strength, found in watched(along, len(STRENGTHS), len(train.rows), title)
    ]
    best, negative = max(scored)  # of equal ones the smallest C
    say(f"{subject.name}: C = {-negative:.3g} ({best:.2f} % on the validation images)")
    both = train + valid
    final = fit(both.rows, both.targets, task.classes, -negative)
    row = _figures(final.scores(test.rows), test.targets)
    return row | {"C": -negative, "valid": best}


def _features(subject: Subject, source: Source) -> Features:
    """Of the readable images of a source."""
    if not isinstance(source, TaggedFiles):
        return Features(*frozen(subject, source, share=1))
    places: list[int] = []
    rows, _ = frozen(subject, source, places, share=1)
    return Features(rows, torch.from_numpy(source.targets[places]).to(rows.device))


def _figures(scores: Tensor, targets: Tensor) -> Row:
    """Every metric in percent that the targets allow."""
    if targets.ndim == 2:
        return {"map11": metrics.mean_average_precision_11(scores, targets)}
    first, fifth = (metrics.hits(scores, targets, k) for k in (1, 5))
    return metrics.summary(first, fifth, targets)


def finetuned(subject: Subject, task: Task, options: Transfer, work: Path | None, say: Say) -> Row:
    """Test figures in percent after fine-tuning, and the `lr` and `weight_decay` chosen."""
    grid = [
        (lr, decay / lr)
        for lr in options.lrs or LRS
        for decay in (WEIGHT_DECAYS if options.weight_decays is None else options.weight_decays)
    ]
    say(f"{subject.name}: {len(grid)} trainings of {options.steps:,} steps, and the chosen again")

    def run(train: Source, test: dict[str, Source], lr: float, decay: float) -> dict[str, Row]:
        return trial(
            subject, train, None, task.classes, test,
            lr=lr, weight_decay=decay, steps=options.steps, batch_size=options.batch_size,
            bn_momentum=norm_momentum(len(train) / options.batch_size), seed=options.seed,
            title=f"{subject.name}, lr {lr:.3g}, decay {decay:.3g}", folder=work, say=say,
        )  # fmt: skip

    chosen, best = grid[0], float("nan")
    if len(grid) > 1:
        scores = [run(task.train, {"valid": task.valid}, *pair)["valid"] for pair in grid]
        at = max(range(len(grid)), key=lambda i: scores[i][task.metric])
        chosen, best = grid[at], scores[at][task.metric]
    row = run(Joined(task.train, task.valid), {"test": task.test}, *chosen)["test"]
    row = row | {"lr": chosen[0], "weight_decay": chosen[1]}
    return row if best != best else row | {"valid": best}
