"""The loop. Top to bottom it is one training run, in order of time."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from byol import schedules, views
from byol.config import Config
from byol.data.loader import Batch
from byol.engine import checkpoint
from byol.engine.device import autocast
from byol.engine.log import Log, Progress
from byol.engine.runfolder import RunFolder
from byol.errors import UserError
from byol.learner import Byol, Details
from byol.monitor import Monitor, Verdict, batch_numbers
from byol.optim import LARS, param_groups, set_learning_rate

MOST_SKIPPED = 10  # steps in a row without a finite gradient that end the run


class Loader(Protocol):
    """What feeds the loop: a function of the step, nothing else."""

    bad: list[str]

    def batches(self, start_step: int, total_steps: int) -> Iterator[Batch]: ...


class Interrupted(Exception):
    """Ctrl-C or SIGTERM; the state of the last whole step is saved."""


@dataclass
class Progressed:
    """Where a run stands; with the learner, optimizer and monitor all that a checkpoint holds."""

    step: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0


def build_optimizer(config: Config, learner: Byol) -> torch.optim.Optimizer:
    """LARS, SGD or AdamW over the online network; biases and norms are neither decayed nor
    adapted. Projector and predictor have groups of their own where their rate is another."""
    optim = config.optim
    constant = optim.predictor_schedule == "constant"
    if optim.projector_lr == optim.predictor_lr == 1 and not constant:
        groups = param_groups(learner, optim.weight_decay)
    else:
        groups = []
        for part, scale, is_constant in (
            (learner.encoder, 1.0, False),
            (learner.projector, optim.projector_lr, False),
            (learner.predictor, optim.predictor_lr, constant),
        ):
            for group in param_groups(part, optim.weight_decay):
                groups.append({**group, "lr_scale": scale, "constant_lr": is_constant})
    if optim.optimizer == "lars":
        return LARS(groups, 0.0, momentum=optim.momentum, trust_coefficient=optim.trust_coefficient)
    for group in groups:
        del group["adapt"]
    if optim.optimizer == "sgd":
        return torch.optim.SGD(groups, 0.0, momentum=optim.momentum)
    return torch.optim.AdamW(groups, 0.0)


def fit(
    config: Config,
    learner: Byol,
    loader: Loader,
    monitor: Monitor,
    folder: RunFolder,
    images: int,
    device: torch.device,
    mode: str,
    keep: Callable[[Byol], None],
) -> tuple[dict[str, float], Verdict]:
    """Train `learner` to the last step, from wherever the run folder stands.

    Returns the last measurement. `keep(learner)` writes the encoder whenever a checkpoint is
    written. Raises Interrupted after saving, and UserError when the run cannot go on.
    """
    total_steps, warmup_steps = config.steps(images)
    optim, train, objective = config.optim, config.train, config.objective
    optimizer = build_optimizer(config, learner)
    at = Progressed()
    if _resume(folder, learner, optimizer, monitor, at, loader) and mode != "quiet":
        print(f"continuing {folder.root} at step {at.step}", flush=True)
    network: nn.Module = torch.compile(learner) if train.compile else learner  # type: ignore[assignment]
    numbers: dict[str, float] = {}
    verdict = Verdict("too early", "nothing was measured yet")
    every = -(-total_steps // train.evaluations)
    buffers = list(learner.buffers())  # norm statistics, which a step that is skipped must not keep
    before = [buffer.clone() for buffer in buffers]

    def save() -> None:
        state = {
            "learner": learner.state_dict(),
            "optimizer": optimizer.state_dict(),
            "monitor": monitor.state_dict(),
            "progress": dict(vars(at)),
            "bad": list(loader.bad),
        }
        checkpoint.save(folder.checkpoints, at.step, state)
        keep(learner)

    title = f"{config.network.model}, {images} images, {optim.epochs:g} epochs"
    progress = Progress(total_steps, optim.batch_size, at.step, mode, title)  # type: ignore[arg-type]
    with _stop_signals() as stopped, closing(Log(folder.root, at.step)) as log, progress:
        saved = asked = time.monotonic()
        for batch in loader.batches(at.step, total_steps):
            waited = time.monotonic() - asked
            torch.manual_seed((train.seed << 32) + at.step)  # for dropout, where a network has it
            torch._foreach_copy_(before, buffers)

            loss, details, labels = _forward_backward(config, network, batch, device)

            lr = schedules.learning_rate(
                at.step, total_steps, warmup_steps, optim.base_lr, optim.batch_size
            )
            tau = schedules.target_decay(
                at.step, total_steps, optim.tau_base, objective.tau_schedule, objective.copy_every
            )
            set_learning_rate(optimizer, lr, optim.base_lr * optim.batch_size / 256)
            if _finite(loss, optimizer):
                optimizer.step()
                learner.update_target(tau)
                monitor.observe(details, labels)
                at.skipped_in_a_row = 0
            else:
                torch._foreach_copy_(buffers, before)
                _skip(at, batch, folder, progress)
            optimizer.zero_grad(set_to_none=True)
            at.step += 1

            shown: dict[str, Any] = {}
            if at.step % train.log_every == 0 or at.step == total_steps:
                shown = _numbers(loss, lr, tau, details)
                log.write(at.step, **shown, skipped=at.skipped)
            if at.step % every == 0 or at.step == total_steps:
                numbers, verdict = monitor.measure(learner, at.step)
                log.write(at.step, **numbers, verdict=verdict.verdict)
                if verdict.verdict in ("doubtful", "collapsed"):
                    sentence = f"step {at.step}: {verdict.verdict}: {verdict.reason}"
                    progress.say(sentence, warning=True)
                if "knn" in numbers:
                    shown["kNN"] = numbers["knn"]
                shown["verdict"] = verdict.verdict
                if verdict.verdict == "collapsed" and train.stop_on_collapse:
                    save()
                    break
            progress.advance(at.step, waited, **{k: shown[k] for k in shown if k in _SHOWN})
            if stopped:
                save()
                raise Interrupted(f"stopped at step {at.step} of {total_steps}")
            if time.monotonic() - saved > train.save_seconds or at.step == total_steps:
                save()
                saved = time.monotonic()
            asked = time.monotonic()
    if not numbers:
        numbers, verdict = monitor.measure(learner, at.step)
    return numbers, verdict


_SHOWN = ("loss", "lr", "tau", "kNN", "verdict")


def _forward_backward(
    config: Config, network: nn.Module, batch: Batch, device: torch.device
) -> tuple[Tensor, Details, Tensor]:
    """Gradients of a whole batch, piece by piece; the loss, the last piece's details and labels."""
    pieces = config.optim.accumulation
    loss = torch.zeros((), device=device)
    for piece in _pieces(batch, pieces):
        view1, view2 = make_views(config, piece, device)  # (b, C, S, S) each
        with autocast(device, config.train.precision):
            piece_loss, details = network(view1, view2, details=True)
        (piece_loss / pieces).backward()
        loss += piece_loss.detach() / pieces
    return loss, details, piece.labels.to(device)


def make_views(config: Config, batch: Batch, device: torch.device) -> tuple[Tensor, Tensor]:
    """Crops (B, 2, C, S, S) to the two views (B, C, S, S) in [0, 1], on the device."""
    crops = batch.crops.to(device, non_blocking=True)
    specs = (config.view1, config.view2)
    view1, view2 = views.make_views(crops, specs, config.train.seed, batch.epoch, batch.index)
    return (
        view1.contiguous(memory_format=torch.channels_last),
        view2.contiguous(memory_format=torch.channels_last),
    )


def _pieces(batch: Batch, count: int) -> Iterator[Batch]:
    """The batch in `count` equal pieces; gradients of all of them make one step."""
    size = len(batch.index) // count
    for start in range(0, size * count, size):
        part = slice(start, start + size)
        yield Batch(batch.crops[part], batch.labels[part], batch.index[part], batch.epoch[part])


def _finite(loss: Tensor, optimizer: torch.optim.Optimizer) -> bool:
    """Whether the loss and every gradient are finite: one number is read from the device."""
    gradients = [w.grad for group in optimizer.param_groups for w in group["params"]]
    norms = torch._foreach_norm([g for g in gradients if g is not None])
    return bool(torch.isfinite(torch.stack([loss, *norms]).sum()))


def _skip(at: Progressed, batch: Batch, folder: RunFolder, progress: Progress) -> None:
    """Count a step that is left out; raises UserError at the tenth in a row."""
    at.skipped += 1
    at.skipped_in_a_row += 1
    progress.say(
        f"step {at.step}: the loss or a gradient is not finite; the step is skipped", warning=True
    )
    if at.skipped_in_a_row >= MOST_SKIPPED:
        folder.write_json("bad_batch.json", {"step": at.step, "images": batch.index.tolist()})
        raise UserError(
            f"{MOST_SKIPPED} steps in a row had no finite gradient, the last one step {at.step}, "
            f"whose images are listed in {folder.root / 'bad_batch.json'}: lower --base-lr or use "
            "--precision fp32"
        )


def _numbers(loss: Tensor, lr: float, tau: float, details: Details) -> dict[str, float]:
    """What a logging step writes; the only transfer from the device besides _finite."""
    value, *rest = torch.cat((loss[None], batch_numbers(details))).tolist()
    names = ("online_target_cosine", "batch_cosine", "batch_deviation")
    return {"loss": value, "lr": lr, "tau": tau, **dict(zip(names, rest, strict=True))}


def _resume(
    folder: RunFolder,
    learner: Byol,
    optimizer: torch.optim.Optimizer,
    monitor: Monitor,
    at: Progressed,
    loader: Loader,
) -> bool:
    """Load the newest whole checkpoint of the run folder; whether there was one."""
    found = checkpoint.newest(folder.checkpoints, partial(print, file=sys.stderr))
    if found is None:
        return False
    _, state = found
    learner.load_state_dict(state["learner"])
    optimizer.load_state_dict(state["optimizer"])
    monitor.load_state_dict(state["monitor"])
    vars(at).update(state["progress"])
    loader.bad.extend(state["bad"])
    return True


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """SIGINT and SIGTERM are put into the list that is yielded, for the loop to act on."""
    caught: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt  # a second Ctrl-C does not wait
        caught.append(number)

    before: dict[signal.Signals, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                before[number] = signal.signal(number, remember)
            except ValueError:  # not the main thread: whoever runs us handles signals
                pass
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
