"""Semi-supervised evaluation: fine-tuning with a share of the labels (paper appendix C.1).

The share is of each class and fixed by the seed; a smaller one lies within a larger one. The rate
and the number of epochs are those with the best top-1 on a tenth of each class that is held out.
Subsets up to 90 % do not touch that tenth; of larger ones, the chosen setting is trained again on
the whole subset.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from byol import metrics
from byol.data.prepared import Prepared
from byol.data.source import Subset
from byol.errors import UserError
from byol.protocols import Semisup
from byol.tasks.extraction import frozen
from byol.tasks.features import baseline, open_labelled
from byol.tasks.finetune import trial
from byol.tasks.linear import linear
from byol.tasks.subject import Subject, untrained
from byol.tasks.subsets import balanced, held_out, orders, read_list

Row = dict[str, float]
Say = Callable[[str], None]


def evaluate(
    subject: Subject, data: Any, options: Semisup, folder: Path | None, say: Say
) -> dict[str, Any]:
    """Accuracies in percent for each share of the labels: fine-tuned, from scratch, untrained."""
    _check(options)
    prepared = open_labelled(data, options.eval_data, options.seed, say)
    say = _once(say)
    parts, held = _parts(prepared, options, say)
    subjects = [subject]
    if options.baselines:
        subjects.append(untrained(subject, options.seed, "supervised"))
    _say_cost(parts, len(subjects), options, say)
    work = folder / "work" / "semisup" if folder else None
    found: dict[str, dict[str, Row]] = {each.name: {} for each in subjects}
    fresh = baseline(subject, prepared.bank, options.seed) if options.baselines else None
    for part, at in parts.items():
        for each in subjects:
            found[each.name][part] = _best(each, prepared, at, held, options, part, work, say)
        if fresh:
            found.setdefault("untrained", {})[part] = _linear(fresh, prepared, at, options)
        figures = "   ".join(f"{name} {row[part]['top1']:.2f} %" for name, row in found.items())
        say(f"{part} ({len(at):,} images): top-1 {figures}")
    if folder and len(parts) > 1:
        _picture(found, folder / "semisup.png")
    rows = {
        name: {f"{key}_{part}": row[key] for part, row in of.items() for key in ("top1", "top5")}
        for name, of in found.items()
    }
    return {
        "rows": rows,
        "metrics": _metrics(parts),
        "images": {part: len(at) for part, at in parts.items()},
        "curve": found,
    }


def _check(options: Semisup) -> None:
    for name in ("fractions", "lrs", "epochs"):
        values = getattr(options, name)
        if not values or min(values) <= 0 or (name == "fractions" and max(values) > 100):
            allowed = "percentages up to 100" if name == "fractions" else "numbers above 0"
            raise UserError(f"{name} is {values}; {allowed} are expected")
    if options.batch_size < 1:
        raise UserError(f"batch_size is {options.batch_size}; it must be 1 or more")


def _parts(
    prepared: Prepared, options: Semisup, say: Say
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Labelled subsets by their names, and the held-out images."""
    labels = prepared.bank.labels
    assert labels is not None
    if options.list is None:
        order = orders(labels, options.seed)
        parts = {f"{p:g}%": balanced(order, p) for p in sorted(options.fractions)}
    else:
        listed = read_list(Path(options.list), prepared.bank, say)
        order = orders(labels, options.seed, listed)
        parts = {"list": listed}
        for label in np.setdiff1d(labels, labels[listed])[:5]:
            say(f"{options.list} names no image of class {(prepared.bank.classes or [])[label]}")
    held = held_out(order)
    if not len(held) and len(options.lrs) * len(options.epochs) > 1:
        raise UserError(
            f"every class of {prepared.bank.name} has one image, so none is left to choose the "
            "learning rate on: give one value for --lrs and one for --epochs"
        )
    return parts, held


def _say_cost(parts: Mapping[str, np.ndarray], rows: int, options: Semisup, say: Say) -> None:
    grid = len(options.lrs) * len(options.epochs)
    images = sum(map(len, parts.values())) * rows * len(options.lrs) * sum(options.epochs)
    say(
        f"{grid * rows * len(parts)} trainings on {images:,.0f} images in all (--fractions, --lrs "
        "and --epochs shorten the list)"
    )


def _best(
    subject: Subject,
    prepared: Prepared,
    at: np.ndarray,
    held: np.ndarray,
    options: Semisup,
    part: str,
    work: Path | None,
    say: Say,
) -> Row:
    """Test accuracies of the setting that is best on the held-out images, and the setting."""

    def run(images: np.ndarray, lr: float, epochs: float, choosing: bool) -> dict[str, Row]:
        tests = {"test": prepared.queries}
        if choosing:
            tests["held"] = Subset(prepared.bank, held)
        return trial(
            subject, prepared.bank, images, prepared.classes, tests,
            lr=lr, epochs=epochs, batch_size=options.batch_size, seed=options.seed,
            title=f"{subject.name}, {part}, lr {lr:g}, {epochs:g} epochs", folder=work, say=say,
        )  # fmt: skip

    grid = [(lr, epochs) for lr in options.lrs for epochs in options.epochs]
    if len(grid) == 1:
        ((lr, epochs),) = grid
        return run(at, lr, epochs, False)["test"] | {"lr": lr, "epochs": epochs}
    learning = np.setdiff1d(at, held)
    found = [run(learning, lr, epochs, True) for lr, epochs in grid]
    chosen = max(range(len(grid)), key=lambda i: found[i]["held"]["top1"])
    lr, epochs = grid[chosen]
    test = found[chosen]["test"]
    if len(learning) < len(at):
        test = run(at, lr, epochs, False)["test"]
    return test | {"lr": lr, "epochs": epochs, "held_out_top1": found[chosen]["held"]["top1"]}


def _linear(subject: Subject, prepared: Prepared, at: np.ndarray, options: Semisup) -> Row:
    """A linear classifier on frozen features, which is cheap."""
    bank, labels = frozen(subject, Subset(prepared.bank, at))
    queries, truth = frozen(subject, prepared.queries)
    return linear(lambda epoch: bank, labels, queries, truth, prepared.classes, seed=options.seed)


def _once(say: Say) -> Say:
    """Repeated lines are said once."""
    said: set[str] = set()

    def first(line: str) -> None:
        if line not in said:
            said.add(line)
            say(line)

    return first


def _metrics(parts: Mapping[str, np.ndarray]) -> dict[str, str]:
    def of(part: str) -> str:
        return "the listed labels" if part == "list" else f"{part[:-1]} % of the labels"

    return {
        f"{key}_{part}": f"{metrics.SUMMARY[key]} with {of(part)}"
        for part in parts
        for key in ("top1", "top5")
    }


def _picture(found: Mapping[str, Mapping[str, Row]], path: Path) -> None:
    """semisup.png: top-1 over the share of labels."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
    for name, row in found.items():
        label = f"{name} (linear)" if name == "untrained" else name
        shares = [float(part[:-1]) for part in row]
        axis.plot(shares, [each["top1"] for each in row.values()], marker="o", label=label)
    axis.set_xscale("log")
    axis.set_xticks(shares, [f"{share:g}" for share in shares])
    axis.minorticks_off()
    axis.set_xlabel("labelled images in %")
    axis.set_ylabel("top-1 accuracy in %")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, loc="upper left")
    figure.savefig(path, dpi=110)
    plt.close(figure)
