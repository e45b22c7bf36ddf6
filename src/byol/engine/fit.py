"""The loop. Top to bottom it is one training run, in order of time."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import torch

from byol.config import Config
from byol.data.loader import Batch
from byol.engine.gradients import over_processes, views_of
from byol.engine.log import Log
from byol.engine.optimizer import build_optimizer
from byol.engine.processes import ALONE, Processes
from byol.engine.progress import Mode, Progress
from byol.engine.runfolder import RunFolder
from byol.engine.signals import stop_signals
from byol.engine.standing import Progressed, Standing
from byol.engine.step import Step
from byol.engine.upcoming import Upcoming
from byol.engine.watch import Watch
from byol.errors import Agreed, Interrupted
from byol.learner import Byol
from byol.monitor import Monitor, Verdict

MOST_SKIPPED = 10  # steps in a row without a finite gradient that end the run


class Loader(Protocol):
    """What feeds the loop: a function of the step, nothing else."""

    bad: list[str]

    def batches(self, start_step: int, total_steps: int) -> Iterator[Batch]: ...


def fit(
    config: Config,
    learner: Byol,
    loader: Loader,
    monitor: Monitor | None,
    folder: RunFolder,
    images: int,
    device: torch.device,
    mode: Mode,
    keep: Callable[[Byol], None],
    processes: Processes = ALONE,
) -> tuple[dict[str, float], Verdict]:
    """Train `learner` to the last step, from wherever the run folder stands.

    The main process has the monitor, the others None; it alone writes and returns the last
    measurement. `keep(learner)` writes the encoder whenever a checkpoint is written. Raises
    Interrupted after saving, and UserError when the run cannot go on.
    """
    train = config.train
    total_steps, warmup_steps = config.steps(images)
    optimizer = build_optimizer(config, learner, processes)
    run = Standing(folder, learner, optimizer, monitor, loader.bad, keep, processes)
    at = run.at
    if run.resume() and mode != "quiet":
        print(f"continuing {folder.root} at step {at.step}", flush=True)
    network = over_processes(config, learner, device, processes)
    training = Step(config, learner, network, optimizer, monitor, total_steps, warmup_steps)
    title = f"{config.network.model}, {images} images, {config.optim.epochs:g} epoch"
    title += "s" * (config.optim.epochs != 1)
    progress = Progress(total_steps, config.optim.batch_size, at.step, mode, title)
    with ExitStack() as during:
        # First: a log means that it can be stopped.
        stopped = during.enter_context(stop_signals(processes.is_main))
        log = during.enter_context(Log(folder.root, at.step)) if monitor else None
        during.enter_context(progress)
        watch = Watch(learner, monitor, log, progress, processes)
        batches = loader.batches(at.step, total_steps)
        upcoming = Upcoming(batches, lambda batch: views_of(config, batch, device))
        while not (at.step == total_steps or at.collapsed and train.stop_on_collapse):
            batch, views = upcoming.take()
            torch.manual_seed(_dropout_seed(train.seed, at.step, processes.rank))
            found = training.gradients(views)
            if device.type != "cpu":
                upcoming.fetch()  # the next one, while the device is still at this one
            lr, tau = training.rates(at.step)
            own = (bool(stopped), run.is_due(train.save_seconds))
            flags = [found.is_bad, *(found.loss.new_full((), flag) for flag in own)]
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
                shown |= watch.note(at, found, lr, tau)
            if at.step % -(-total_steps // train.evaluations) == 0 or is_last:
                shown |= watch.measure(at)
            progress.advance(at.step, upcoming.waited, **_short(shown))
            if is_due or is_last or is_stopped or at.collapsed:
                run.save()
            if is_stopped:
                raise Interrupted(f"stopped at step {at.step} of {total_steps}")
    if monitor and not watch.numbers:
        return monitor.measure(learner, at.step)
    return watch.numbers, watch.verdict


def _short(shown: dict[str, Any]) -> dict[str, Any]:
    """What the bar has room for."""
    names = ("loss", "lr", "tau", "kNN", "verdict")
    return {name: shown[name] for name in names if shown.get(name) is not None}


def _dropout_seed(seed: int, step: int, rank: int) -> int:
    """For dropout, where a network has it: its masks cannot follow the images."""
    return ((seed << 32) + step + (rank << 48)) % (1 << 64)


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
