"""A computation on a GPU as one CUDA graph: its kernels are launched together, at the price of one.

A small step is a thousand kernels of a few microseconds each, which the host cannot launch as fast
as the device runs them.
"""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from byol.errors import UserError

T = TypeVar("T")
WARM = 3  # calls before the recording: libraries choose their algorithms, memory is found


class Captured(Generic[T]):
    """`compute(tensors)` and the gradients that it leaves behind, recorded once and replayed.

    All calls take tensors of the same shapes on one device. What is returned, and the gradients,
    lie in the graph's own memory, which the next call overwrites. Random numbers of the device are
    drawn anew in each call, from its generator as it is seeded then; everything that Python
    decides is as it was when the call was recorded. Raises UserError where `compute` cannot be
    recorded, as what waits for the device cannot.
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
        device = tensors[0].device
        self._inputs = [tensor.clone() for tensor in tensors]
        graph = torch.cuda.CUDAGraph()
        # The device need not be the current one, on which an empty graph would be recorded; and
        # the loader's threads go on pinning memory, which must not break the recording.
        stream = torch.cuda.Stream(device)
        recording = torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local")
        try:
            with torch.cuda.device(device), recording:
                self._output = self._compute(*self._inputs)
        except RuntimeError as error:
            first = error.__context__ or error  # leaving the recording fails, too
            raise UserError(
                f"the step cannot be recorded as a CUDA graph ({str(first).splitlines()[0]}): give "
                "--cuda-graph false"
            ) from error
        self._graph = graph
        self._gradients = [parameter.grad for parameter in self._parameters]
