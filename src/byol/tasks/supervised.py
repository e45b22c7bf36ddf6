"""What labels alone would have given: the same network, trained from scratch with all of them.

The budget is a number of epochs, or of seconds of this process's processor time, which are turned
into steps by timing a few. The paper's own baselines (appendix C.2, table 9) add stronger
augmentation and label smoothing; here everything but the labels is as in fine-tuning.
"""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from byol import metrics
from byol.data.prepared import Prepared
from byol.errors import UserError
from byol.networks.external import save_encoder
from byol.protocols import Supervised
from byol.tasks.augment import PLAIN
from byol.tasks.features import features, open_labelled, stream
from byol.tasks.finetune import Classifier, accuracy, finetune, steps_of
from byol.tasks.knn import knn
from byol.tasks.subject import Subject, key, untrained
from byol.tasks.training import remembered

TIMED = (4, 20)  # steps; the difference of both costs leaves out what is done once


def evaluate(
    subject: Subject,
    data: Any,
    options: Supervised,
    folder: Path | None,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """A row of accuracies in percent of the network trained from scratch, and its kNN.

    Its encoder is left in `folder`/supervised, to be put beside others.
    """
    _check(options)
    if options.views == "run" and subject.views is None:
        raise UserError(
            "there is no config.yaml with the views of the pretraining: leave --views run out"
        )
    views = subject.views if options.views == "run" and subject.views else (PLAIN,)
    prepared = open_labelled(data, options.eval_data, options.seed, say)
    fresh = untrained(subject, options.seed, "supervised")
    work = folder / "work" / "supervised" if folder else None
    settings: dict[str, Any] = {
        "lr": options.lr,
        "batch_size": options.batch_size,
        "weight_decay": options.weight_decay,
        "seed": options.seed,
        "views": views,
    }
    n = len(prepared.bank)
    steps = steps_of(options.epochs, n, options.batch_size)
    if options.seconds is not None:
        steps = _affordable(fresh, prepared, options.seconds, settings, work)
    epochs = steps * min(options.batch_size, max(n, 2)) / n
    say(f"from scratch: {steps} steps, {epochs:.1f} epochs of {n:,} images")
    network = finetune(
        fresh, prepared.bank, None, prepared.classes, steps=steps, folder=work, title=fresh.name,
        say=say, **settings,
    )  # fmt: skip
    row = accuracy(network, prepared.queries) | {"knn": _knn(network, prepared, options)}
    say(f"supervised: top-1 {row['top1']:.2f} %, kNN {row['knn']:.2f} %")
    if folder and work:
        (folder / fresh.name).mkdir(exist_ok=True)
        save_encoder(folder / fresh.name / "encoder", network.encoder, subject.description)
        shutil.rmtree(work, ignore_errors=True)
    described = f"kNN top-1 in % of its features (k {options.k}, {options.temperature:g})"
    return {
        "rows": {fresh.name: row},
        "metrics": {**metrics.SUMMARY, "knn": described},
        "steps": steps,
        "epochs": epochs,
        "seconds": options.seconds,
    }


def _check(options: Supervised) -> None:
    for name in ("epochs", "seconds", "lr", "batch_size", "k", "temperature"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise UserError(f"{name} is {value}; it must be above 0")


def _affordable(
    subject: Subject,
    prepared: Prepared,
    seconds: float,
    settings: dict[str, Any],
    work: Path | None,
) -> int:
    """Steps that `seconds` of processor time pay for; remembered, so that a training goes on."""
    name = f"steps-{key(subject, prepared.bank, (seconds, sorted(settings.items())))}.json"

    def cost(steps: int) -> float:
        began = time.process_time()
        given = (subject, prepared.bank, None, prepared.classes)
        finetune(*given, steps=steps, title="timing", **settings)
        return time.process_time() - began

    def steps() -> int:
        each = (cost(TIMED[1]) - cost(TIMED[0])) / (TIMED[1] - TIMED[0])
        return max(1, int(seconds / max(each, 1e-4)))

    return remembered(work and work / name, steps)


def _knn(network: Classifier, prepared: Prepared, options: Supervised) -> float:
    subject = network.subject
    found = [
        features(network.encoder, stream(s, *subject.geometry, subject.workers), subject.device)
        for s in (prepared.bank, prepared.queries)
    ]
    (bank, bank_labels), (queries, labels) = found
    neighbours = (options.k, options.temperature)
    return knn(bank, bank_labels, queries, labels, prepared.classes, *neighbours)["top1"]
