"""The official norm averages and statistics of groups, by hand and against torch's norm; what
stands in the place of norms."""

import copy

import pytest
import torch
from torch import nn

from byol.networks.norm import (
    Affine,
    DebiasedBatchNorm,
    GroupedBatchNorm,
    initialise_affine_,
    norm_layer,
)


def test_averages_are_bias_corrected_means_of_biased_statistics() -> None:
    norm = DebiasedBatchNorm(5).double()
    hidden_mean, hidden_var = torch.zeros(5, dtype=torch.float64), torch.zeros(5).double()
    for count in range(1, 7):
        x = torch.randn(4, 5, 3, 2, dtype=torch.float64) * count + count
        norm(x)
        hidden_mean = 0.9 * hidden_mean + 0.1 * x.mean((0, 2, 3))
        hidden_var = 0.9 * hidden_var + 0.1 * x.var((0, 2, 3), unbiased=False)
        debias = 1 - 0.9**count
        torch.testing.assert_close(norm.running_mean, hidden_mean / debias, rtol=1e-12, atol=0)
        torch.testing.assert_close(norm.running_var, hidden_var / debias, rtol=1e-12, atol=0)
        assert norm.num_batches_tracked == count


def test_first_batch_replaces_whatever_stood_there() -> None:
    norm = DebiasedBatchNorm(2).double()
    assert norm.running_mean is not None
    norm.running_mean.fill_(100.0)
    norm(torch.tensor([[1.0, 2.0], [3.0, 6.0]], dtype=torch.float64))
    torch.testing.assert_close(norm.running_mean, torch.tensor([2.0, 4.0]).double())
    torch.testing.assert_close(norm.running_var, torch.tensor([1.0, 4.0]).double())


def test_output_and_gradient_equal_torchs_in_training_and_its_buffers_serve_in_evaluation() -> None:
    ours, theirs = DebiasedBatchNorm(3), nn.BatchNorm2d(3)
    x = torch.randn(4, 3, 5, 5)
    x1, x2 = x.clone().requires_grad_(), x.clone().requires_grad_()
    cotangent = torch.randn(4, 3, 5, 5)
    y1, y2 = ours(x1), theirs(x2)
    torch.testing.assert_close(y1, y2)
    (y1 * cotangent).sum().backward()
    (y2 * cotangent).sum().backward()
    torch.testing.assert_close(x1.grad, x2.grad)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_evaluation_changes_nothing() -> None:
    norm = DebiasedBatchNorm(3).eval()
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    norm(torch.randn(4, 3))
    assert all(torch.equal(before[key], value) for key, value in norm.state_dict().items())


def test_half_precision_input_keeps_float32_statistics() -> None:
    norm, exact = DebiasedBatchNorm(3), DebiasedBatchNorm(3)
    x = torch.randn(64, 3, 4, 4).bfloat16()
    assert norm(x).dtype == torch.bfloat16
    exact(x.float())
    assert norm.running_var is not None and norm.running_var.dtype == torch.float32
    torch.testing.assert_close(norm.running_var, exact.running_var, rtol=1e-5, atol=1e-6)


def test_a_long_run_stays_finite() -> None:
    norm = DebiasedBatchNorm(2)
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.fill_(10_000_000)
    norm(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
    torch.testing.assert_close(norm.running_mean, torch.tensor([0.2, 0.4]))


@pytest.mark.parametrize("shape", [(12, 5), (12, 5, 3, 2)])
@pytest.mark.parametrize("kind", [GroupedBatchNorm, DebiasedBatchNorm])
def test_groups_are_separate_batches(kind: type[GroupedBatchNorm], shape: tuple[int, ...]) -> None:
    grouped, alone = kind(5, images=4).double(), nn.ModuleList(kind(5).double() for _ in range(3))
    for step in range(3):
        x = torch.randn(shape, dtype=torch.float64) * 3 + torch.arange(12.0).reshape(
            -1, *[1] * (len(shape) - 1)
        )
        x1, x2 = x.clone().requires_grad_(), x.clone().requires_grad_()
        cotangent = torch.randn(shape, dtype=torch.float64)
        together = grouped(x1)
        apart = torch.cat([norm(part) for norm, part in zip(alone, x2.split(4), strict=True)])
        torch.testing.assert_close(together, apart, rtol=1e-12, atol=1e-12)
        (together * cotangent).sum().backward()
        (apart * cotangent).sum().backward()
        torch.testing.assert_close(x1.grad, x2.grad, rtol=1e-10, atol=1e-12)
        assert grouped.num_batches_tracked == step + 1
        for name in ("running_mean", "running_var"):
            mean = torch.stack([norm.get_buffer(name) for norm in alone]).mean(0)
            torch.testing.assert_close(grouped.get_buffer(name), mean, rtol=1e-12, atol=1e-12)


def test_without_groups_it_is_torchs_batch_norm() -> None:
    ours, theirs = GroupedBatchNorm(3), nn.BatchNorm2d(3)
    for _ in range(3):
        x = torch.randn(8, 3, 4, 4) + 1
        torch.testing.assert_close(ours(x), theirs(x))
    for name, tensor in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], tensor)


def test_a_batch_that_does_not_split_is_split_as_equally_as_can_be() -> None:
    norm = GroupedBatchNorm(4, images=4)
    x = torch.randn(9, 4)  # two groups, of 5 and 4
    torch.testing.assert_close(
        norm(x)[:5], nn.functional.batch_norm(x[:5], None, None, training=True)
    )
    assert norm(torch.randn(3, 4)).isfinite().all()


@pytest.mark.parametrize("kind", [GroupedBatchNorm, DebiasedBatchNorm])
def test_a_plain_average_is_kept_where_momentum_is_none(kind: type[GroupedBatchNorm]) -> None:
    norm, batches = kind(2).double(), torch.randn(5, 6, 2, dtype=torch.float64)
    norm.momentum = None
    for batch in batches:
        norm(batch)
    torch.testing.assert_close(norm.running_mean, batches.mean((0, 1)))


def test_affine_layers_start_as_batch_norm_would_make_the_batch_leave() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), Affine(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 6), Affine(6)
    )
    normed = copy.deepcopy(network)
    normed[1], normed[5] = nn.BatchNorm2d(4), nn.BatchNorm1d(6)
    x, y = torch.randn(16, 3, 6, 6), torch.randn(16, 3, 6, 6)
    initialise_affine_(network, lambda: (network(x), network(y)))  # the first batch alone counts
    torch.testing.assert_close(network(x), normed(x), rtol=1e-4, atol=1e-5)
    before = [p.clone() for p in network.parameters()]
    network(y)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert network(x).requires_grad and [n for n, _ in Affine(3).named_parameters()] == [
        "weight",
        "bias",
    ]


def test_a_scale_of_zero_stays_zero() -> None:
    layer = Affine(3)
    nn.init.zeros_(layer.weight)
    initialise_affine_(layer, lambda: layer(torch.randn(8, 3)))
    assert not layer(torch.randn(8, 3)).any()


@pytest.mark.parametrize(
    ("kind", "maps", "expected"),
    [
        ("batch", True, nn.BatchNorm2d(64)),
        ("batch", False, nn.BatchNorm1d(64)),
        ("group", True, nn.GroupNorm(32, 64)),
        ("group-ws", True, nn.GroupNorm(16, 64)),
        ("layer", True, nn.GroupNorm(1, 64)),
        ("layer", False, nn.LayerNorm(64)),
        ("none", True, Affine(64)),
    ],
)
def test_norms_by_name(kind: str, maps: bool, expected: nn.Module) -> None:
    assert repr(norm_layer(kind, maps)(64)) == repr(expected)
