"""The gradient of a step: views, forward and backward, piece by piece and over all processes.

DistributedDataParallel averages gradients in buckets while the backward pass still runs.
"""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from byol import gated, views
from byol.config import Config
from byol.data.loader import Batch
from byol.engine.device import autocast
from byol.engine.processes import Processes
from byol.learner import Byol, Details
from byol.networks.norm import span_
from byol.networks.recompute import recompute_

Views = Iterable[tuple[Tensor, Tensor, Tensor]]  # view 1, view 2, labels of each piece of a batch


def over_processes(
    config: Config, learner: Byol, device: torch.device, processes: Processes
) -> nn.Module:
    """The learner as the loop calls it: compiled if asked for, with the gradients and, unless
    they are asked for by process, the batch statistics of all processes."""
    network: nn.Module = learner
    if config.train.compile:
        learner.compile_encoders()
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
            network = DistributedDataParallel(learner, device_ids=ids, broadcast_buffers=False)
        if config.train.compress_gradients:
            from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

            network.register_comm_hook(None, bf16_compress_hook)
    return network


def forward_backward(
    config: Config, network: nn.Module, batch: Batch, device: torch.device
) -> tuple[Tensor, Details, Tensor]:
    """Gradients of a whole batch, piece by piece; the loss, the last piece's details and labels.

    The loss is that of this process's images.
    """
    return gradients(config, network, views_of(config, batch, device))


def views_of(config: Config, batch: Batch, device: torch.device) -> Views:
    """View 1, view 2 (b, C, S, S) and labels (b,): of the whole batch at once, or of each piece
    when it is its turn."""
    pieces = _pieces(batch, config.optim.accumulation)
    made = (
        (*make_views(config, piece, device), piece.labels.to(device, non_blocking=True))
        for piece in pieces
    )
    return list(made) if config.optim.accumulation == 1 else made


def gradients(config: Config, network: nn.Module, views: Views) -> tuple[Tensor, Details, Tensor]:
    """forward_backward of views that are made."""
    pieces = config.optim.accumulation
    losses = []
    for number, piece in enumerate(views):
        view1, view2, labels = piece
        # Pieces before the last one keep their gradients to themselves.
        no_sync = getattr(network, "no_sync", None) if number < pieces - 1 else None
        with no_sync() if no_sync else nullcontext():
            with autocast(view1.device, config.train.precision):
                loss, details = network(view1, view2, details=True)
            (loss / pieces).backward()
        losses.append(loss.detach() / pieces)
    return torch.stack(losses).sum(), details, labels


def make_views(config: Config, batch: Batch, device: torch.device) -> tuple[Tensor, Tensor]:
    """Crops (B, 2, C, S, S) to the two views (B, C, S, S) in [0, 1], on the device."""
    crops = batch.crops.to(device, non_blocking=True)
    specs, seed = (config.view1, config.view2), config.train.seed
    if device.type != "cpu":
        compiled = config.train.compile
        return gated.make_views(crops, specs, seed, batch.epoch, batch.index, compiled)
    view1, view2 = views.make_views(crops, specs, seed, batch.epoch, batch.index)
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
