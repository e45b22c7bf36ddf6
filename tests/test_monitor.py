"""The verdict, the numbers behind it, and that measuring changes nothing."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from byol import metrics, monitor
from byol.learner import Byol, Details
from byol.monitor import Held, Monitor, batch_numbers, extract, judge
from byol.networks.convnet import ConvNet
from byol.networks.heads import mlp

WARM, CPU = monitor.WARM_STEPS, torch.device("cpu")


@pytest.mark.parametrize(
    ("step", "deviation", "rank", "verdict"),
    [
        (WARM - 1, 0.0, 1.0, "too early"),
        (WARM, monitor.COLLAPSED_BELOW - 0.01, 50.0, "collapsed"),
        (WARM, monitor.COLLAPSED_BELOW, 50.0, "doubtful"),
        (WARM, monitor.HEALTHY_ABOVE - 0.01, 50.0, "doubtful"),
        (WARM, monitor.HEALTHY_ABOVE, monitor.LOW_RANK - 0.1, "doubtful"),
        (WARM, monitor.HEALTHY_ABOVE, monitor.LOW_RANK, "healthy"),
        (10**6, 0.97, 90.0, "healthy"),
        (WARM, math.nan, 50.0, "doubtful"),
        (WARM, 0.9, math.inf, "doubtful"),
    ],
)
def test_thresholds(step: int, deviation: float, rank: float, verdict: str) -> None:
    assert judge(step, deviation, rank).verdict == verdict


def test_the_reason_has_number_threshold_and_advice() -> None:
    collapsed = judge(WARM, 0.041, 50).reason
    assert "0.04" in collapsed and str(monitor.COLLAPSED_BELOW) in collapsed
    assert "--base-lr" in collapsed and "--tau-base" in collapsed
    low_rank = judge(WARM, 0.9, 2.34).reason
    assert "2.3" in low_rank and f"{monitor.LOW_RANK:g}" in low_rank and "views.png" in low_rank
    assert str(WARM) in judge(0, 0.9, 50).reason
    assert "0.97" in judge(WARM, 0.97, 50).reason


def test_thresholds_tell_spread_from_collapse() -> None:
    spread, collapsed = torch.randn(256, 64), 1 + 0.05 * torch.randn(256, 64)
    for z, verdict in ((spread, "healthy"), (collapsed, "collapsed")):
        assert (
            judge(WARM, metrics.standard_deviation(z), metrics.effective_rank(z)).verdict == verdict
        )


def _learner() -> Byol:
    encoder = ConvNet(4)
    return Byol(encoder, mlp(encoder.num_features, 16, 8), mlp(8, 16, 8))


def _size(learner: Byol) -> int:
    return int(learner.encoder.num_features)  # type: ignore[arg-type]


def _held(n: int, classes: int = 3) -> Held:
    images = torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8)
    return Held(images, torch.arange(n) % classes if classes else torch.full((n,), -1))


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_measuring_leaves_training_as_it_was() -> None:
    """Bit for bit: weights, buffers, training modes of every part, random numbers."""
    learner = _learner()
    list(learner.encoder.modules())[-1].eval()  # a frozen part stays frozen
    watch = Monitor(_held(9), _held(7), 3, _size(learner), CPU)
    modes = [part.training for part in learner.modules()]
    before, random = _state(learner), torch.get_rng_state()
    numbers, _ = watch.measure(learner, 5)
    assert [part.training for part in learner.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    again, _ = watch.measure(learner, 5)
    assert numbers == again


def test_modes_come_back_after_an_error() -> None:
    learner = _learner()

    def fails(images: Tensor) -> Tensor:
        assert not learner.encoder.training
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="memory"):
        extract(fails, [learner.encoder], iter([torch.zeros(1, 3, 32, 32)]))
    assert all(part.training for part in learner.modules())


def test_held_images_become_floats_in_unit_range() -> None:
    held = _held(5)
    batches = list(held.batches(CPU, size=2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    torch.testing.assert_close(torch.cat(batches), held.images / 255)
    floats = torch.rand(3, 1, 4, 4)
    assert torch.equal(next(Held(floats, held.labels[:3]).batches(CPU)), floats)


def test_numbers_by_hand() -> None:
    learner, bank, queries = _learner(), _held(30), _held(20)
    for _ in range(3):
        learner(torch.rand(8, 3, 32, 32), torch.rand(8, 3, 32, 32))
    watch = Monitor(bank, queries, 3, _size(learner), CPU, knn_k=5)
    nn.init.normal_(watch.probe.weight)
    numbers, verdict = watch.measure(learner, WARM)
    plain = copy.deepcopy(learner).eval()
    with torch.no_grad():
        features = [plain.encoder(held.images / 255) for held in (bank, queries)]
        z = plain.projector(features[1])
        votes = metrics.knn_scores(features[0], bank.labels, features[1], 3, 5)
        probe = watch.probe(features[1])
    rows = F.normalize(z, dim=1)
    expected = {
        "projection_deviation": float(rows.std(0, correction=0).mean()) * 8**0.5,
        "projection_rank": metrics.effective_rank(z),
        "projection_cosine": (float((rows @ rows.T).sum()) - 20) / (20 * 19),
        "knn": metrics.accuracy(votes, queries.labels),
        "probe": metrics.accuracy(probe, queries.labels),
    }
    assert numbers == pytest.approx(expected, rel=1e-4)
    assert verdict == judge(WARM, numbers["projection_deviation"], numbers["projection_rank"])


def test_without_labels_there_are_the_collapse_numbers_alone() -> None:
    learner = _learner()
    watch = Monitor(_held(4, 0), _held(8, 0), 0, _size(learner), CPU)
    numbers, _ = watch.measure(learner, 0)
    assert list(numbers) == ["projection_deviation", "projection_rank", "projection_cosine"]
    before = _state(watch.probe)
    watch.observe(learner(*torch.rand(2, 4, 3, 32, 32), details=True)[1], torch.full((4,), -1))
    assert all(torch.equal(value, before[name]) for name, value in _state(watch.probe).items())


def _details(features: Tensor) -> Details:
    empty = torch.zeros(2, len(features), 4)
    return Details(torch.stack((features, 100 - features)), empty, empty, empty)


def test_label_monitor_learns_from_view_1_and_known_labels() -> None:
    features = torch.randn(64, 5)
    labels = (features[:, 0] > 0).long()
    watch = Monitor(_held(2), _held(2), 2, 5, CPU)
    other = Monitor(_held(2), _held(2), 2, 5, CPU)
    for _ in range(300):
        watch.observe(_details(features), labels)
        padded = torch.cat((features, 50 * torch.randn(8, 5)))
        other.observe(_details(padded), torch.cat((labels, torch.full((8,), -1))))
    assert metrics.accuracy(watch.probe(features), labels) > 95
    torch.testing.assert_close(watch.probe.weight, other.probe.weight, rtol=1e-3, atol=1e-4)


def test_a_batch_without_labels_has_no_gradient() -> None:
    watch = Monitor(_held(2), _held(2), 2, 5, CPU)
    watch.observe(_details(torch.randn(4, 5)), torch.full((4,), -1))
    assert torch.equal(watch.probe.weight, torch.zeros(2, 5))


def test_state_goes_on_where_it_was() -> None:
    features, labels = torch.randn(16, 5), torch.arange(16) % 2
    one, two = (Monitor(_held(2), _held(2), 2, 5, CPU) for _ in range(2))
    one.observe(_details(features), labels)
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    for watch in (one, two):
        watch.observe(_details(features), labels)
    assert torch.equal(one.probe.weight, two.probe.weight)


def test_numbers_of_a_batch_by_hand() -> None:
    z = torch.tensor([[[3.0, 0.0], [0.0, 2.0]], [[1.0, 0.0], [1.0, 0.0]]])  # (view, image, P)
    p = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[9.0, 9.0], [9.0, 9.0]]])
    targets = torch.tensor([[[9.0, 9.0], [9.0, 9.0]], [[5.0, 0.0], [0.0, 5.0]]])
    agreement, between, spread = batch_numbers(Details(z, z, p, targets)).tolist()
    assert (agreement, between) == pytest.approx((0.5, 0.0))
    assert spread == pytest.approx(0.5 * 2**0.5)
