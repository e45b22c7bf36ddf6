"""The bookkeeping around a CUDA graph, with a graph that a CPU can replay; tests/test_gpu.py has
the real one."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from byol.checks import check_graph
from byol.config import Config
from byol.engine.captured import WARM, Captured
from byol.engine.step import is_captured
from byol.errors import UserError
from byol.learner import Byol
from byol.networks.heads import ClosedForm
from byol.options import with_options

WEIGHT = nn.Parameter(torch.tensor([2.0]))
ELSEWHERE = torch.device("meta")


def compute(x: Tensor) -> Tensor:
    loss = (WEIGHT * x.square()).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


class Graph:
    """Replays by computing again from the recorded inputs into the recorded results."""

    captured: Captured[Tensor]

    def replay(self) -> None:
        given = WEIGHT.grad
        WEIGHT.grad = None
        self.captured._output.copy_(compute(*self.captured._inputs))
        gradient = self.captured._gradients[0]
        assert gradient is not None and WEIGHT.grad is not None
        gradient.copy_(WEIGHT.grad)
        WEIGHT.grad = given


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What each recording was asked for; leaving one that failed fails, as CUDA's does."""
    asked: list[dict[str, Any]] = []

    @contextmanager
    def graph(_: Graph, **how: Any) -> Iterator[None]:
        asked.append(how)
        try:
            yield
        except BaseException:
            raise RuntimeError("capture was invalidated")  # noqa: B904

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: device)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    WEIGHT.grad = None
    return asked


def test_replays_take_their_own_inputs_and_bring_their_gradients(
    recordings: list[dict[str, Any]],
) -> None:
    captured = Graph.captured = Captured(compute, [WEIGHT])
    for call in range(1, WARM + 4):
        assert captured(torch.tensor([float(call)])) == 2.0 * call**2
        assert WEIGHT.grad is not None and WEIGHT.grad == call**2
        WEIGHT.grad = None  # as zero_grad does
        assert len(recordings) == (call > WARM)


def test_it_is_recorded_where_its_tensors_are_while_other_threads_work(
    recordings: list[dict[str, Any]],
) -> None:
    captured = Captured(lambda x: x, [])
    for _ in range(WARM):
        captured(torch.empty(1, device=ELSEWHERE))
    captured._record((torch.empty(1, device=ELSEWHERE),))
    assert recordings == [{"stream": ELSEWHERE, "capture_error_mode": "thread_local"}]


def test_what_cannot_be_recorded_is_said_in_a_sentence(recordings: list[dict[str, Any]]) -> None:
    calls = 0

    def waits(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls > WARM:
            raise RuntimeError("operation not permitted\nwhen stream is capturing")
        return x

    captured = Captured(waits, [])
    for _ in range(WARM):
        captured(torch.ones(1))
    for _ in range(2):  # it stays unrecorded
        with pytest.raises(UserError, match=r"\(operation not permitted\): give"):
            captured(torch.ones(1))


@pytest.mark.parametrize(
    ("options", "there", "expected"),
    [
        ({}, {}, True),
        ({"model": "resnet18"}, {}, True),
        ({"image_size": 96}, {}, False),
        ({"image_size": 96, "cuda_graph": True}, {}, True),
        ({"model": "vit_tiny_patch16_224"}, {}, False),
        ({"checkpointing": True}, {}, False),
        ({"cuda_graph": False}, {}, False),
        ({"accumulation": 2, "cuda_graph": True}, {}, False),
        ({"cuda_graph": True}, {"spans": True}, False),
        ({"cuda_graph": True}, {"device": "cpu"}, False),
        ({}, {"predictor": ClosedForm()}, False),
        ({"cuda_graph": True}, {"predictor": ClosedForm()}, False),
    ],
)
def test_which_steps_are_captured(
    options: dict[str, Any], there: dict[str, Any], expected: bool
) -> None:
    config = with_options(Config(), {"model": "convnet", "image_size": 32, **options})
    weight = SimpleNamespace(device=torch.device(there.get("device", "cuda")))
    learner = SimpleNamespace(
        parameters=lambda: iter([weight]),
        spans=there.get("spans", False),
        predictor=there.get("predictor"),
    )
    assert is_captured(config, cast(Byol, learner)) == expected


@pytest.mark.parametrize(
    ("options", "device", "world", "why"),
    [
        ({}, "cpu", 1, "the device is cpu"),
        ({}, "cuda", 2, "2 processes"),
        ({"accumulation": 2}, "cuda", 1, "several pieces"),
        ({"predictor": "closed-form"}, "cuda", 1, "solved for"),
    ],
)
def test_a_graph_that_cannot_be_is_refused_where_it_is_asked_for(
    options: dict[str, Any], device: str, world: int, why: str
) -> None:
    check_graph(with_options(Config(), options), device, world)
    check_graph(with_options(Config(), {"cuda_graph": False, **options}), device, world)
    asked = with_options(Config(), {"cuda_graph": True, **options})
    with pytest.raises(UserError, match=why):
        check_graph(asked, device, world)


def test_a_graph_that_can_be_is_not_refused() -> None:
    check_graph(with_options(Config(), {"cuda_graph": True}), "cuda", 1)
