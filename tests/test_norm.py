"""The official norm averages, by hand and against torch's norm."""

import torch
from torch import nn

from byol.networks.norm import DebiasedBatchNorm


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


def test_without_a_momentum_the_averages_are_plain() -> None:
    norm = DebiasedBatchNorm(1, momentum=None)
    for batch in ([1.0, 3.0], [4.0, 10.0]):  # means 2 and 7, biased variances 1 and 9
        norm(torch.tensor(batch)[:, None])
    torch.testing.assert_close(norm.running_mean, torch.tensor([4.5]))
    torch.testing.assert_close(norm.running_var, torch.tensor([5.0]))


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
