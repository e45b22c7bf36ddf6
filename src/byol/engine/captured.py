"""A computation on a GPU as one CUDA graph: its kernels are launched together, at the price of one.

A small step is a thousand kernels of a few microseconds each, which the host cannot launch as fast
as the device runs them.
"""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")
WARM = 3  # calls before the recording: libraries choose their algorithms, memory is found


class Captured(Generic[T]):
    """`compute(tensors)` and the gradients that it leaves behind, recorded once and replayed.

    All calls take tensors of the same shapes. What is returned, and the gradients, lie in the
    graph's own memory, which the next call overwrites.
    """

    def __init__(self, compute: Callable[..., T], parameters: Sequence[nn.Parameter]) -> None:
        self._compute, self._parameters = compute, parameters
        self._calls = 0
        self._graph: Any = None  # torch.cuda.CUDAGraph, absent where torch is built without CUDA

    def __call__(self, *tensors: Tensor) -> T:
        if self._calls < WARM:
            self._calls += 1
            return self._compute(*tensors)
        if self._graph is None:
            self._record(tensors)
        for own, given in zip(self._inputs, tensors, strict=True):
            own.copy_(given)
        self._graph.replay()
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient  # the caller may have taken it off
        return self._output

    def _record(self, tensors: tuple[Tensor, ...]) -> None:
        """Record a call; nothing is computed by it. Gradients must be off."""
        self._inputs = [tensor.clone() for tensor in tensors]
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._output = self._compute(*self._inputs)
        self._gradients = [parameter.grad for parameter in self._parameters]
