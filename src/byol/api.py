"""What the commands do, as functions: pretrain, evaluate, embed, convert, load_encoder."""

import dataclasses
import importlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from byol import console, protocols, report
from byol.build import build_loader
from byol.checks import check
from byol.data.source import open_splits
from byol.engine import device as devices
from byol.engine.files import atomic_write
from byol.engine.gradients import make_views
from byol.engine.opening import open_together
from byol.engine.processes import start
from byol.errors import UserError
from byol.networks.external import save_encoder
from byol.networks.foreign import open_encoder
from byol.pretraining import pretrain as pretrain
from byol.pretraining import source_name
from byol.resolve import resolve
from byol.tasks import beside as others
from byol.tasks import extraction, serving
from byol.tasks.subject import Subject, open_subject


def load_encoder(run_or_file: str | Path, encoder: nn.Module | None = None) -> nn.Module:
    """The encoder of a run folder, of our or others' weights file, or "timm:NAME", in evaluation
    mode.

    It maps images (B, C, S, S) in [0, 1] to features (B, D) and normalises inside. `encoder` gives
    the module where the run trained one of the user's own. docs/evaluations/weights.md lists what
    is read. Raises UserError if anything is missing, surplus or damaged.
    """
    return open_encoder(run_or_file, encoder)[0]


def convert(run: str | Path, out: str | Path) -> Path:
    """`byol convert`: encoder.safetensors and encoder.json in the folder `out`, of any encoder that
    load_encoder takes. Returns the path of the former."""
    encoder, description = open_encoder(run)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    save_encoder(folder / "encoder", encoder, description)
    return folder / "encoder.safetensors"


def embed(
    run: str | Path,
    data: Any = None,
    out: str | Path | None = None,
    encoder: nn.Module | None = None,
    device: str = "auto",
    split: str | None = None,
    workers: int = 0,
    image_size: int | None = None,
    say: Callable[[str], None] = console.silence,
) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, D) float32 and labels (N,) int64 (-1 without) of all readable images of `data`.

    `out` also writes them: .npz (features, labels, locations) or .parquet (one row an image).
    """
    path = Path(out) if out is not None else None
    if path is not None and path.suffix not in (".npz", ".parquet"):
        raise UserError(
            f"{path} ends in {path.suffix!r}; embeddings are written as .npz or .parquet"
        )
    with start() as processes:
        with processes.together():
            subject = open_subject(
                run, encoder, device, workers, image_size=image_size, processes=processes
            )
        source = open_together(processes, data, None, split).train
        if processes.is_main:
            say(f"features of {source.name}: {len(source):,} images (--split names another split)")
        rows, labels, places = extraction.collect(
            subject.encoder, source, subject.geometry, workers, subject.device, processes
        )
        features, numbers = rows.cpu().numpy(), labels.cpu().numpy()
        if path is not None and processes.is_main:
            report.write_embeddings(path, features, numbers, [source.locate(i) for i in places])
    return features, numbers


def evaluate(
    protocol: str,
    run: str | Path,
    data: Any = None,
    out: str | Path | None = None,
    encoder: nn.Module | None = None,
    device: str = "auto",
    workers: int = 0,
    image_size: int | None = None,
    beside: Sequence[str | Path] | str | Path = (),
    say: Callable[[str], None] = console.say,
    **options: Any,
) -> dict[str, Any]:
    """`byol evaluate PROTOCOL`: measure an encoder; byol.protocols has each protocol's options.

    run: whatever load_encoder takes. image_size: another side in pixels than the encoder's own.
    beside: other encoders, each "ENCODER" or "NAME=ENCODER", that get a row of the same table.
    out: the folder for PROTOCOL.json and pictures; by default `evaluations` in the run folder, or
    nothing is written where run is no folder.
    Raises UserError for what cannot work. Returns what PROTOCOL.json holds.
    """
    chosen, named = protocols.parse(protocol, options), others.named(beside)
    if named and not hasattr(chosen, "baselines"):
        raise UserError(f"{protocol} trains the run's own network: there is nothing to put beside")
    folder = Path(out) if out else Path(run, "evaluations") if Path(run).is_dir() else None
    work = folder and folder / "work" / f"features-{protocol}"
    with start() as processes:
        with processes.together():
            own = {"trained": encoder}
            subjects = [
                open_subject(
                    path, own.get(name), device, workers, name, image_size, processes, work
                )
                for name, path in {"trained": run, **named}.items()
            ]
        if not processes.is_main:
            for subject in subjects:
                serving.serve(subject)  # features are the work of all
            return processes.from_main({})
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
        task = importlib.import_module(f"byol.tasks.{protocol}")
        result = _measured(task, subjects, data, chosen, folder, say)
        if folder:
            written = {
                "protocol": protocol,
                "options": dataclasses.asdict(chosen),
                "data": source_name(data),
                "encoder": dict(subjects[0].description),
                "beside": named,
                "environment": devices.environment(),
                "result": result,
            }
            text = json.dumps(written, indent=1) + "\n"
            atomic_write(folder / f"{protocol}.json", text.encode())
            say(f"written to {folder / protocol}.json")
        else:
            say(f"nothing was written, as {run} is no run folder: --out DIR keeps the figures")
        if work:
            shutil.rmtree(work, ignore_errors=True)
        return processes.from_main(result)


def _measured(
    task: Any,
    subjects: Sequence[Subject],
    data: Any,
    chosen: Any,
    folder: Path | None,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """The result of the first, with the rows of the others in it."""
    with serving.served(subjects[0]):
        result: dict[str, Any] = task.evaluate(subjects[0], data, chosen, folder, say)
    for subject in subjects[1:]:
        say(f"beside: {subject.name}")
        place = folder and folder / "beside" / subject.name
        if place:
            place.mkdir(parents=True, exist_ok=True)
        alone = dataclasses.replace(chosen, baselines=False)
        with serving.served(subject):
            found = task.evaluate(subject, data, alone, place, say)
        others.add(result, subject.name, found)
    return result


def show_views(
    data: Any = None,
    preset: str | None = None,
    image_size: int | None = None,
    out: str | Path = "views.png",
    seed: int = 0,
) -> str:
    """A contact sheet of both views of the first images; says what it shows.

    Without a preset the views are those that pretraining would choose for the data.
    """
    source = open_splits(data, None, None).train
    options: dict[str, Any] = {"preset": preset, "seed": seed, "workers": 0, "batch_size": 16}
    if image_size is not None:
        options["image_size"] = image_size
    config, _ = resolve(source, data, None, {**options, "epochs": 100})
    check(config)
    loader = build_loader(config, source, torch.device("cpu"))
    batch = next(loader.batches(0, 1))
    report.contact_sheet(make_views(config, batch, torch.device("cpu")), Path(out))
    shown = f"the preset {preset}" if preset else f"the recipe {config.recipe} makes them"
    one = "" if config.data.channels == 3 else f" (channel 1 of {config.data.channels})"
    return f"{out}: both views of {len(batch.index)} images{one} as {shown}"
