"""Activation checkpointing: a block keeps its input alone, and computes the rest again when its
gradient is due (arXiv 1604.06174). Less memory for one more forward pass."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute_(module: nn.Module) -> None:
    """Every member of the outermost nn.Sequentials of `module` computes its activations twice.

    The residual blocks of ResNets and the blocks of transformers are such members. Gradients,
    buffers and random numbers are those of the module as it was: the second pass draws the masks
    of the first, and leaves norm statistics alone. Names of parameters and buffers stay.
    """
    for child in module.children():
        if isinstance(child, nn.Sequential):
            for block in child:
                _recompute_block_(block)
        else:
            recompute_(child)


def _recompute_block_(block: nn.Module) -> None:
    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _unmoved(block)

    block.forward = partial(  # type: ignore[method-assign]
        checkpoint, block.forward, use_reentrant=False, context_fn=contexts
    )


@contextmanager
def _unmoved(block: nn.Module) -> Iterator[None]:
    """Buffers are afterwards what they were before."""
    buffers = list(block.buffers())
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, was in zip(buffers, before, strict=True):
                buffer.copy_(was)
