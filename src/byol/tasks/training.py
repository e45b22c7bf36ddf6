"""The loop of every evaluation that trains with labels: fine-tuning and dense prediction."""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from byol.engine import checkpoint
from byol.engine.files import atomic_write
from byol.engine.progress import Mode, Progress
from byol.errors import UserError
from byol.networks.smallmaps import speed_small_maps_

T = TypeVar("T")
SAVE_SECONDS = 120


class Diverged(UserError):
    """The loss is infinite or not a number."""


def train(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Callable[[int], Iterator[T]],
    loss: Callable[[T], Tensor],
    rate: Callable[[int], float],
    steps: int,
    batch_size: int,
    title: str,
    folder: Path | None = None,
    mode: Mode = "auto",
) -> None:
    """Minimise loss(batch), a scalar of `network`, for `steps` steps.

    batches(step) yields the batches from that step on; they must depend on the step alone, so that
    an interrupted training goes on exactly. rate(step) multiplies each group's own learning rate
    (`initial_lr`, taken from the optimizer as it is given). With `folder`, the state is saved there
    every two minutes and at the end, and found again. Raises Diverged when the loss is not finite.
    """
    speed_small_maps_(network)
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    start = _resume(folder, network, optimizer)
    with Progress(steps, batch_size, start, mode, title) as progress:
        saved = asked = time.monotonic()
        for step, batch in zip(range(start, steps), batches(start), strict=False):
            waited = time.monotonic() - asked
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * rate(step)
            value = loss(batch)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            shown = {}
            if step % 10 == 9 or step == steps - 1:
                shown["loss"] = float(value.detach())
                if shown["loss"] - shown["loss"] != 0:  # infinite or not a number
                    raise Diverged(
                        f"{title}: the loss is {shown['loss']} at step {step}; lower the learning "
                        "rate"
                    )
            progress.advance(step + 1, waited, **shown)
            if folder and (time.monotonic() - saved > SAVE_SECONDS or step == steps - 1):
                state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
                checkpoint.save(folder, step + 1, state)
                saved = time.monotonic()
            asked = time.monotonic()


def unless_diverged(
    make: Callable[[], T], is_baseline: bool, say: Callable[[str], None]
) -> T | None:
    """make(); None where the loss of a baseline is no number, of which `say` hears: what was
    measured so far is worth more."""
    try:
        return make()
    except Diverged as why:
        if not is_baseline:
            raise
        say(f"{why}: this baseline is left out")
        return None


def remembered(memory: Path | None, make: Callable[[], T]) -> T:
    """make(), plain values, or what it gave when the file `memory` was written."""
    if memory and memory.exists():
        return cast(T, json.loads(memory.read_text()))
    found = make()
    if memory:
        memory.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(memory, json.dumps(found).encode())
    return found


def watched(
    items: Iterable[T], total: int, batch_size: int, title: str, start: int = 0
) -> Iterator[T]:
    """The items from number `start` on of `total`, each of `batch_size` images, under a bar; an
    empty title, or a single item, shows none."""
    mode: Mode = "auto" if title and total > 1 else "quiet"
    with Progress(total, batch_size, start, mode, title) as progress:
        asked = time.monotonic()
        for number, item in enumerate(items, start + 1):
            waited = time.monotonic() - asked
            yield item
            progress.advance(number, waited)
            asked = time.monotonic()


def work_folder(folder: Path | None, name: str, encoder: nn.Module, *said: object) -> Path | None:
    """The place in `folder` for the checkpoints of just this encoder and what is `said` of the
    data and the options; None where nothing is to be written."""
    if folder is None:
        return None
    digest = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode())
    for tensor in encoder.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return folder / "work" / f"{name}-{digest.hexdigest()[:12]}"


def _resume(folder: Path | None, network: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    found = checkpoint.newest(folder, partial(print, file=sys.stderr)) if folder else None
    if found is None:
        return 0
    step, state = found
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    return step
