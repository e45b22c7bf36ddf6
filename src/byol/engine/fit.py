"""The loop. Top to bottom it is one training run, in order of time."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch

from byol.config import Config
from byol.data.loader import Batch
from byol.engine import checkpoint
from byol.engine.gradients import over_processes, views_of
from byol.engine.log import Log, Progress
from byol.engine.optimizer import build_optimizer, full_state
from byol.engine.processes import ALONE, Processes
from byol.engine.runfolder import RunFolder
from byol.engine.signals import stop_signals
from byol.engine.step import Found, Step
from byol.engine.upcoming import Upcoming
from byol.errors import Agreed, Interrupted
from byol.learner import Byol
from byol.monitor import Monitor, Verdict, batch_numbers
from byol.networks.norm import own_averages

MOST_SKIPPED = 10  # steps in a row without a finite gradient that end the run


class Loader(Protocol):
    """What feeds the loop: a function of the step, nothing else."""

    bad: list[str]

    def batches(self, start_step: int, total_steps: int) -> Iterator[Batch]: ...


@dataclass
class Progressed:
    """Where a run stands; with the learner, optimizer and monitor all that a checkpoint holds."""

    step: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    collapsed: bool = False  # by the last measurement


def fit(
    config: Config,
    learner: Byol,
    loader: Loader,
    monitor: Monitor | None,
    folder: RunFolder,
    images: int,
    device: torch.device,
    mode: str,
    keep: Callable[[Byol], None],
    processes: Processes = ALONE,
) -> tuple[dict[str, float], Verdict]:
    """Train `learner` to the last step, from wherever the run folder stands.

    The main process has the monitor, the others None; it alone writes and returns the last
    measurement. `keep(learner)` writes the encoder whenever a checkpoint is written. Raises
    Interrupted after saving, and UserError when the run cannot go on.
    """
    total_steps, warmup_steps = config.steps(images)
    train = config.train
    optimizer = build_optimizer(config, learner, processes)
    at = Progressed()
    if _resume(folder, learner, optimizer, monitor, at, loader, processes) and mode != "quiet":
        print(f"continuing {folder.root} at step {at.step}", flush=True)
    network = over_processes(config, learner, device, processes)
    training = Step(config, learner, network, optimizer, monitor, total_steps, warmup_steps)
    numbers: dict[str, float] = {}
    verdict = Verdict("too early", "nothing was measured yet")
    every = -(-total_steps // train.evaluations)
    own = own_averages(learner)

    def save() -> None:
        processes.mean_(own)
        _save(folder, learner, optimizer, monitor, at, loader, processes)
        if monitor:
            keep(learner)

    def measure() -> dict[str, Any]:
        nonlocal numbers, verdict
        before = verdict.verdict
        processes.mean_(own)
        if monitor and log:
            numbers, verdict = monitor.measure(learner, at.step)
            log.write(at.step, **numbers, verdict=verdict.verdict)
        verdict = processes.from_main(verdict)  # the others wait here
        at.collapsed = verdict.verdict == "collapsed"
        if verdict.verdict != before:
            _warn(verdict, at.step, progress, processes)
        return {"kNN": numbers.get("knn"), "verdict": verdict.verdict}

    title = f"{config.network.model}, {images} images, {config.optim.epochs:g} epochs"
    batch_size = config.optim.batch_size
    progress = Progress(total_steps, batch_size, at.step, mode, title)  # type: ignore[arg-type]
    with ExitStack() as during:
        stopped = during.enter_context(stop_signals())  # first: a log means that it can be stopped
        log = during.enter_context(Log(folder.root, at.step)) if monitor else None
        during.enter_context(progress)
        saved = time.monotonic()
        batches = loader.batches(at.step, total_steps)
        upcoming = Upcoming(batches, lambda batch: views_of(config, batch, device))
        while not (at.step == total_steps or at.collapsed and train.stop_on_collapse):
            batch, views = upcoming.take()
            torch.manual_seed(_dropout_seed(train.seed, at.step, processes.rank))
            found = training.gradients(views)
            if device.type != "cpu":
                upcoming.fetch()  # the next one, while the device is still at this one
            lr, tau = training.rates(at.step)
            due = time.monotonic() - saved > train.save_seconds
            flags = [found.is_bad, *(found.loss.new_full((), x) for x in (bool(stopped), due))]
            is_bad, is_stopped, is_due = processes.any(flags)
            if is_bad:
                training.discard()
                _skip(at, batch, folder, progress, processes)
            else:
                training.update(found, tau)
                at.skipped_in_a_row = 0
            at.step += 1
            is_last = at.step == total_steps

            shown: dict[str, Any] = {}
            if at.step % train.log_every == 0 or is_last:
                shown = _numbers(found, lr, tau, processes)
                if log:
                    log.write(at.step, **shown, skipped=at.skipped)
            if at.step % every == 0 or is_last:
                shown |= measure()
            progress.advance(at.step, upcoming.waited, **_short(shown))
            if is_due or is_last or is_stopped or at.collapsed:
                save()
                saved = time.monotonic()
            if is_stopped:
                raise Interrupted(f"stopped at step {at.step} of {total_steps}")
    if monitor and not numbers:
        numbers, verdict = monitor.measure(learner, at.step)
    return numbers, verdict


def _short(shown: dict[str, Any]) -> dict[str, Any]:
    """What the bar has room for."""
    names = ("loss", "lr", "tau", "kNN", "verdict")
    return {name: shown[name] for name in names if shown.get(name) is not None}


def _dropout_seed(seed: int, step: int, rank: int) -> int:
    """For dropout, where a network has it: its masks cannot follow the images."""
    return ((seed << 32) + step + (rank << 48)) % (1 << 64)


def _warn(verdict: Verdict, step: int, progress: Progress, processes: Processes) -> None:
    if verdict.verdict in ("doubtful", "collapsed"):
        sentence = f"step {step}: {verdict.verdict}: {verdict.reason}"
        progress.say(sentence, warning=processes.is_main)


def _skip(
    at: Progressed, batch: Batch, folder: RunFolder, progress: Progress, processes: Processes
) -> None:
    """Count a step that is left out; raises UserError at the tenth in a row."""
    at.skipped += 1
    at.skipped_in_a_row += 1
    progress.say(
        f"step {at.step}: the loss or a gradient is not finite; the step is skipped",
        warning=processes.is_main,
    )
    if at.skipped_in_a_row < MOST_SKIPPED:
        return
    images = [i for part in processes.gather(batch.index.tolist()) for i in part]
    if processes.is_main:
        folder.write_json("bad_batch.json", {"step": at.step, "images": images})
    raise Agreed(
        f"{MOST_SKIPPED} steps in a row had no finite gradient, the last one step {at.step}, "
        f"whose images are listed in {folder.root / 'bad_batch.json'}: lower --base-lr or use "
        "--precision fp32"
    )


def _numbers(found: Found, lr: float, tau: float, processes: Processes) -> dict[str, float]:
    """What a logging step writes, means over the processes."""
    values = torch.cat((found.loss[None], batch_numbers(found.details)))  # (4,)
    processes.mean_([values])
    value, *rest = values.tolist()
    names = ("online_target_cosine", "batch_cosine", "batch_deviation")
    return {"loss": value, "lr": lr, "tau": tau, **dict(zip(names, rest, strict=True))}


def _save(
    folder: RunFolder,
    learner: Byol,
    optimizer: torch.optim.Optimizer,
    monitor: Monitor | None,
    at: Progressed,
    loader: Loader,
    processes: Processes,
) -> None:
    """Write a checkpoint in the main process, of what all have met; none goes on before it is
    written, as a launcher stops the one that writes when another has ended."""
    bad = [file for part in processes.gather(list(loader.bad)) for file in part]
    loader.bad[:] = dict.fromkeys(bad)
    collected = full_state(optimizer)
    if monitor:
        state = {
            "learner": learner.state_dict(),
            "optimizer": collected,
            "monitor": monitor.state_dict(),
            "progress": dict(vars(at)),
            "bad": list(loader.bad),
        }
        checkpoint.save(folder.checkpoints, at.step, state)
    processes.gather(None)


def _resume(
    folder: RunFolder,
    learner: Byol,
    optimizer: torch.optim.Optimizer,
    monitor: Monitor | None,
    at: Progressed,
    loader: Loader,
    processes: Processes,
) -> bool:
    """Load the newest checkpoint that is whole in all processes; whether there was one."""
    found = checkpoint.newest(folder.checkpoints, partial(print, file=sys.stderr), processes)
    if found is None:
        return False
    _, state = found
    learner.load_state_dict(state["learner"])
    optimizer.load_state_dict(state["optimizer"])
    if monitor:
        monitor.load_state_dict(state["monitor"])
    vars(at).update(state["progress"])
    loader.bad.extend(state["bad"])
    return True
