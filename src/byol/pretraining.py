"""`byol pretrain` from what was asked to result.json: open, resolve, train, measure."""

import copy
import json
import shlex
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from byol import console, report
from byol.baselines import compare, say_figures
from byol.build import build_learner, build_loader, build_monitor, describe
from byol.checks import check, check_graph, check_share
from byol.config import FREE, Config
from byol.data.loader import Batch
from byol.data.prepared import Prepared, prepare
from byol.data.source import Splits
from byol.engine import checkpoint
from byol.engine import device as devices
from byol.engine.files import atomic_write
from byol.engine.fit import Loader, fit
from byol.engine.gradients import make_views
from byol.engine.memory import keep_freed
from byol.engine.opening import open_together
from byol.engine.processes import Processes, hint, pick_device, start
from byol.engine.progress import Mode
from byol.engine.runfolder import RunFolder
from byol.errors import UserError
from byol.learner import Byol
from byol.networks.encoder import Encoder
from byol.networks.external import save_encoder
from byol.networks.norm import initialise_affine_
from byol.options import to_dict, with_options
from byol.resolve import resolve


def pretrain(
    data: Any = None,
    out: str | Path = "runs/byol",
    recipe: str | None = None,
    model: str | nn.Module | None = None,
    mode: Mode = "auto",
    **overrides: Any,
) -> dict[str, Any]:
    """Train an encoder with BYOL and measure it; the command `byol pretrain`.

    data: a path or object that byol.data.source.open_source takes; None for the drawn textures.
    out: the run folder. Started again with the same arguments, a run goes on where it stopped.
    model: an encoder's name, or an nn.Module of your own, images (B, C, S, S) to (B, D).
    mode: "auto" (a live bar on a terminal), "plain" or "quiet".
    overrides: any option of byol.config, by its flat name (epochs=100, view1_blur=0.5, ...).

    Returns what result.json holds. Raises UserError for what cannot work, and
    byol.errors.Interrupted after saving when stopped by a signal.
    """
    with start() as processes:
        quiet = mode == "quiet" or not processes.is_main
        return _pretrain(
            data,
            Path(out),
            recipe,
            model,
            "quiet" if quiet else mode,
            overrides,
            processes,
            console.silence if quiet else console.say,
        )


def _pretrain(
    data: Any,
    out: Path,
    recipe: str | None,
    model: str | nn.Module | None,
    mode: Mode,
    overrides: dict[str, Any],
    processes: Processes,
    say: Callable[[str], None],
) -> dict[str, Any]:
    module = model if isinstance(model, nn.Module) else None
    if model is not None:
        overrides["model"] = "custom" if module is not None else model
    with processes.together():
        splits = open_together(processes, data, overrides.get("eval_data"), overrides.get("split"))
        config, reasons = resolve(splits.train, data, recipe, overrides)
        check(config)
        _check_eval_data(config, splits)
        prepared = prepare(splits, config.train.seed, config.data.hold_out)
        if config.data.hold_out:  # the rule counts what is trained on
            config, reasons = resolve(prepared.train, data, recipe, overrides)
        device = pick_device(config.train.device, processes)
        asked = "fp32" if config.network.reference else config.train.precision
        config = with_options(config, {"precision": devices.pick_precision(device, asked)})
        check_share(config, processes.world)
        check_graph(config, device.type, processes.world)
        learner = build_learner(config, module)  # before the folder is touched: a name may be wrong
    saved = {**to_dict(config), "source": source_name(data)}
    processes.agree({**saved, "images": len(prepared.train), "device": device.type})
    folder = RunFolder(out)
    with ExitStack() as lock:
        finished = None
        with processes.together():
            if processes.is_main:
                lock.enter_context(folder)
                folder.match_config(saved, FREE, to_dict(Config()))
                finished = _finished(config, prepared, folder)
        if finished := processes.from_main(finished):
            say(f"{folder.root} is finished; its figures are in {folder.root / 'result.json'}")
            say_figures(finished, say)
            _say_next(folder.root, data, prepared, say)
            return finished
        if processes.is_main:
            machine = {**devices.environment(), "processes": processes.names}
            folder.write_json("environment.json", machine)
        for sentence in (*reasons, hint(processes, device), _cost(config, device), prepared.choice):
            if sentence:
                say(sentence)
        say(f"writing to {folder.root}")
        result = _run(config, prepared, learner, folder, module, device, mode, say, processes)
        _say_next(folder.root, data, prepared, say)
        return result


def _cost(config: Config, device: torch.device) -> str | None:
    """What a person without a GPU should know before a large network begins."""
    network, data, size = config.network, config.data, config.optim.batch_size
    if device.type != "cpu" or data.image_size < 128:
        return None
    return (
        f"no GPU: {network.model} on batches of {size} at {data.image_size} pixels is slow here "
        "and wants gigabytes of memory; --model resnet18 --image-size 96 --batch-size 32 wants far "
        "less"
    )


def _check_eval_data(config: Config, splits: Splits) -> None:
    if config.data.eval_data is not None and (splits.test is None or splits.test.labels is None):
        raise UserError(
            f"eval_data {config.data.eval_data} has no labels to measure with; give labelled "
            "images or leave --eval-data out"
        )


def _finished(config: Config, prepared: Prepared, folder: RunFolder) -> dict[str, Any] | None:
    """What result.json holds, if the last step is done and measured."""
    total, _ = config.steps(len(prepared.train))
    result = folder.root / "result.json"
    if checkpoint.newest_step(folder.checkpoints) < total or not result.exists():
        return None
    return cast(dict[str, Any], json.loads(result.read_text()))


def _say_next(root: Path, data: Any, prepared: Prepared, say: Callable[[str], None]) -> None:
    """Where the outcome lies, and the commands that use it."""
    say(f"the encoder is {root / 'encoder.safetensors'}, its curves are {root / 'curves.png'}")
    is_named = data is None or isinstance(data, (str, Path))
    run, images = shlex.quote(str(root)), shlex.quote(source_name(data)) if is_named else "DATA"
    measure = f" or byol evaluate linear {run} {images}" if prepared.classes else ""
    say(f"next: byol embed {run} {images} --out features.parquet{measure}")


def source_name(data: Any) -> str:
    """What the record says that data was: its path, or the type of an object."""
    if data is None:
        return "textures"
    return str(data) if isinstance(data, (str, Path)) else type(data).__name__


def _run(
    config: Config,
    prepared: Prepared,
    learner: Byol,
    folder: RunFolder,
    module: nn.Module | None,
    device: torch.device,
    mode: Mode,
    say: Callable[[str], None],
    processes: Processes,
) -> dict[str, Any]:
    """Train, then measure: everything between an open run folder and result.json."""
    started, started_cpu = time.monotonic(), time.process_time()
    devices.make_deterministic(config.train.deterministic)
    if device.type == "cpu":
        keep_freed()
    first = copy.deepcopy(module)  # as it was given: the untrained encoder of the comparison
    learner = learner.to(device).to(memory_format=torch.channels_last)
    with processes.together():
        loader = build_loader(config, prepared.train, device, processes)
        monitor = None
        if processes.is_main:
            monitor = build_monitor(config, prepared, learner, device)
    _begin(config, learner, loader, folder, device, processes)
    keep = partial(_keep, config, folder, loader.bad)
    numbers, verdict = fit(
        config,
        learner,
        loader,
        monitor,
        folder,
        len(prepared.train),
        device,
        mode,
        keep,
        processes,
    )
    if processes.is_main:
        keep(learner)
    result: dict[str, Any] = {
        "collapse": {"verdict": verdict.verdict, "reason": verdict.reason},
        "monitor": {name: float(f"{value:.6g}") for name, value in numbers.items()},
        "bad_files": len(loader.bad),
    }
    say(f"{verdict.verdict}: {verdict.reason}")
    if prepared.classes:
        untrained = build_learner(config, first).encoder
        result |= compare(config, prepared, learner.encoder, untrained, device, say, processes)
    if loader.bad:
        several = "s" * (len(loader.bad) != 1)
        bad = folder.root / "bad_files.txt"
        say(f"{len(loader.bad)} file{several} could not be decoded: see {bad}")
    result["seconds"] = round(time.monotonic() - started, 1)
    result["cpu_seconds"] = round(time.process_time() - started_cpu, 1)
    if processes.is_main:
        folder.write_json("result.json", result)
        report.curves(folder.root)
    return processes.from_main(result)


def _begin(
    config: Config,
    learner: Byol,
    loader: Loader,
    folder: RunFolder,
    device: torch.device,
    processes: Processes,
) -> None:
    """What the first batch is for before any step: scales of a network without norms, a picture."""
    batch = next(loader.batches(0, 1))
    initialise_affine_(learner, lambda: learner(*_first_views(config, batch, device)))
    if processes.is_main:
        sheet = make_views(config, batch, torch.device("cpu"))
        report.contact_sheet(sheet, folder.root / "views.png")


def _keep(config: Config, folder: RunFolder, bad: list[str], learner: Byol) -> None:
    """Write the encoder, and which files could not be decoded."""
    save_encoder(folder.root / "encoder", cast(Encoder, learner.encoder), describe(config))
    if bad:
        atomic_write(folder.root / "bad_files.txt", "".join(f"{x}\n" for x in bad).encode())


def _first_views(config: Config, batch: Batch, device: torch.device) -> list[Tensor]:
    """Both views of as many images of the batch as pass at once."""
    count = len(batch.index) // config.optim.accumulation
    return [view[:count] for view in make_views(config, batch, device)]
