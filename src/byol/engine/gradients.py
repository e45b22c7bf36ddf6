"""The gradient of a step: views, forward and backward, piece by piece and over all processes.

A view's backward pass follows its forward pass before the other view's begins, so that only one
view's activations are held. DistributedDataParallel averages gradients in buckets while the last
backward pass still runs.
"""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from byol import gated, views
from byol.config import Config
from byol.data.loader import Batch
from byol.engine.device import autocast
from byol.engine.processes import Processes
from byol.learner import Byol, Details, OneView
from byol.networks.norm import span_
from byol.networks.recompute import recompute_
from byol.networks.smallmaps import speed_small_maps_
from byol.objective import Pair

Views = Iterable[tuple[Tensor, Tensor, Tensor]]  # view 1, view 2, labels of each piece of a batch


class ViewByView(nn.Module):
    """`learner.of_view` as the call of a module, which is what DistributedDataParallel wraps."""

    def __init__(self, learner: Byol) -> None:
        super().__init__()
        self.learner = learner

    def forward(self, view: Tensor, facing: Tensor, own: Tensor) -> OneView:
        return self.learner.of_view(view, facing, own)


def over_processes(
    config: Config, learner: Byol, device: torch.device, processes: Processes
) -> nn.Module:
    """The learner as `gradients` calls it: a view at a time where its objective allows that,
    compiled if asked for, with the gradients and, unless they are asked for by process, the batch
    statistics of all processes."""
    network: nn.Module = ViewByView(learner) if learner.objective.is_separable else learner
    if config.train.compile:
        learner.compile_encoders()
    else:
        speed_small_maps_(learner)
    if config.train.checkpointing:
        recompute_(learner.encoder)
    if processes.world > 1:
        if config.network.norm_over == "all":
            images = config.optim.batch_size // config.optim.accumulation // processes.world
            span_(learner, images)
        learner.spans = True
        ids = [device] if device.type == "cuda" else None
        with warnings.catch_warnings():  # torch renames the option, with another meaning
            warnings.simplefilter("ignore", FutureWarning)
            # Norm buffers are equal already, or a process's own (networks/norm.py).
            network = DistributedDataParallel(network, device_ids=ids, broadcast_buffers=False)
        if config.train.compress_gradients:
            from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

            network.register_comm_hook(None, bf16_compress_hook)
    return network


def views_of(config: Config, batch: Batch, device: torch.device) -> Views:
    """View 1, view 2 (b, C, S, S) and labels (b,): of the whole batch at once, or of each piece
    when it is its turn."""
    pieces = _pieces(batch, config.optim.accumulation)
    made = (
        (*make_views(config, piece, device), piece.labels.to(device, non_blocking=True))
        for piece in pieces
    )
    return list(made) if config.optim.accumulation == 1 else made


def gradients(
    config: Config, learner: Byol, network: nn.Module, views: Views
) -> tuple[Tensor, Details, Tensor]:
    """Gradients of a whole batch, piece by piece; the loss, the last piece's details and labels.

    `network` is what `over_processes` made of the learner. The loss is that of this process's
    images.
    """
    pieces = config.optim.accumulation
    one_piece = _view_by_view if learner.objective.is_separable else _at_once
    losses = []
    for number, piece in enumerate(views):
        view1, view2, labels = piece
        is_last = number == pieces - 1
        loss, details = one_piece(config, learner, network, (view1, view2), is_last)
        losses.append(loss)
    return torch.stack(losses).sum(), details, labels


def _view_by_view(
    config: Config, learner: Byol, network: nn.Module, views: Pair, is_last: bool
) -> tuple[Tensor, Details]:
    """Gradients of a piece, each view's before the other's forward pass."""
    casts = partial(autocast, views[0].device, config.train.precision)
    with casts():
        targets = learner.targets(views)  # (b, P) each
    seen = list[OneView]()
    for view, facing, own in zip(views, learner.objective.faced(targets), targets, strict=True):
        with _kept_here(network, unless=is_last and len(seen) == 1):
            with casts():
                direction: OneView = network(view, facing, own)
            loss = direction.loss / config.optim.accumulation
            loss.backward()
        seen.append(direction._replace(loss=loss.detach()))
    losses, features, projections, predictions = map(torch.stack, zip(*seen, strict=True))
    return losses.sum(), Details(features, projections, predictions, torch.stack(targets))


def _at_once(
    config: Config, learner: Byol, network: nn.Module, views: Pair, is_last: bool
) -> tuple[Tensor, Details]:
    """Gradients of a piece of an objective that ties the views together."""
    with _kept_here(network, unless=is_last):
        with autocast(views[0].device, config.train.precision):
            loss, details = network(*views, details=True)
        loss = loss / config.optim.accumulation
        loss.backward()
    return loss.detach(), details


def _kept_here(network: nn.Module, unless: bool) -> AbstractContextManager[None]:
    """Gradients stay in this process: those before the last ones of a step go with them."""
    no_sync = getattr(network, "no_sync", None)
    return no_sync() if no_sync and not unless else nullcontext()


def make_views(config: Config, batch: Batch, device: torch.device) -> tuple[Tensor, Tensor]:
    """Crops (B, 2, C, S, S) to the two views (B, C, S, S) in [0, 1], on the device."""
    crops = batch.crops.to(device, non_blocking=True)
    specs, seed = (config.view1, config.view2), config.train.seed
    cut = config.data.blur_taps == "3-sigma"
    if device.type != "cpu":
        compiled = config.train.compile
        return gated.make_views(crops, specs, seed, batch.epoch, batch.index, compiled, cut)
    view1, view2 = views.make_views(crops, specs, seed, batch.epoch, batch.index, cut)
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
