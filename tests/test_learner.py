"""The learner: who sees which view, what gets a gradient, and what the target keeps."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from byol import schedules
from byol.learner import Byol
from byol.losses import regression_loss
from byol.networks.convnet import ConvNet
from byol.networks.heads import ClosedForm, mlp
from byol.objective import BYOL, Objective


def _learner(independent: bool = False, objective: Objective = BYOL) -> Byol:
    def modules() -> tuple[nn.Module, nn.Module]:
        encoder = ConvNet(4)
        return encoder, mlp(encoder.num_features, 16, 8)

    encoder, projector = modules()
    target_encoder, target_projector = modules() if independent else (None, None)
    return Byol(encoder, projector, mlp(8, 16, 8), target_encoder, target_projector, objective)


def _views(n: int = 6) -> tuple[Tensor, Tensor]:
    return torch.rand(n, 3, 32, 32), torch.rand(n, 3, 32, 32)


def _online(learner: Byol) -> list[nn.Module]:
    return [learner.encoder, learner.projector]


def _target(learner: Byol) -> list[nn.Module]:
    return [learner.target_encoder, learner.target_projector]


def _parameters(modules: list[nn.Module]) -> list[Tensor]:
    return [p for module in modules for p in module.parameters()]


def test_both_directions_are_summed() -> None:
    learner = _learner(independent=True)
    view1, view2 = _views()
    plain = copy.deepcopy(learner)
    with torch.no_grad():
        p1, p2 = (plain.predictor(plain.projector(plain.encoder(view))) for view in (view1, view2))
        z1, z2 = (plain.target_projector(plain.target_encoder(view)) for view in (view1, view2))
    expected = regression_loss(p1, z2).mean() + regression_loss(p2, z1).mean()
    torch.testing.assert_close(learner(view1, view2).detach(), expected)
    assert 0 < expected < 8


def test_details_are_those_of_the_plain_forward() -> None:
    learner = _learner()
    other, views = copy.deepcopy(learner), _views()
    loss, details = learner(*views, details=True)
    assert torch.equal(loss, other(*views))
    assert details.features.shape == (2, 6, learner.encoder.num_features)
    assert details.projections.shape == details.predictions.shape == details.targets.shape
    assert details.targets.shape == (2, 6, 8)
    for tensor in vars(details).values():
        assert not tensor.requires_grad
    per_image = regression_loss(details.predictions, details.targets.flip(0)).sum(0)
    torch.testing.assert_close(loss.detach(), per_image.mean())
    for ours, theirs in zip(learner.state_dict().items(), other.state_dict().items(), strict=True):
        assert ours[0] == theirs[0] and torch.equal(ours[1], theirs[1])


def test_only_the_online_network_gets_a_gradient() -> None:
    learner = _learner(independent=True)
    learner(*_views()).backward()
    for parameter in _parameters([*_online(learner), learner.predictor]):
        assert parameter.requires_grad and parameter.grad is not None
    for parameter in _parameters(_target(learner)):
        assert not parameter.requires_grad and parameter.grad is None


def test_target_update_covers_all_parameters_and_no_buffer() -> None:
    learner = _learner(independent=True).double()
    for _ in range(2):
        learner(*(view.double() for view in _views()))  # fills the norm buffers
    before, online = copy.deepcopy(_target(learner)), copy.deepcopy(_online(learner))
    learner.update_target(0.75)
    for was, source, now in zip(
        _parameters(before), _parameters(online), _parameters(_target(learner)), strict=True
    ):
        assert not torch.equal(was, source) or was.ndim == 1
        torch.testing.assert_close(now, 0.75 * was + 0.25 * source, rtol=1e-14, atol=1e-15)
    for old, new in zip(before, _target(learner), strict=True):
        for was_buffer, now_buffer in zip(old.buffers(), new.buffers(), strict=True):
            assert torch.equal(was_buffer, now_buffer)
    for old, new in zip(online, _online(learner), strict=True):
        for name, tensor in old.state_dict().items():
            assert torch.equal(tensor, new.state_dict()[name])


@pytest.mark.parametrize("tau", [0.0, 1.0])
def test_target_update_at_the_ends(tau: float) -> None:
    learner = _learner(independent=True)
    before = copy.deepcopy(_parameters(_target(learner)))
    learner.update_target(tau)
    expected = _parameters(_online(learner)) if tau == 0 else before
    for now, then in zip(_parameters(_target(learner)), expected, strict=True):
        assert torch.equal(now, then)


def test_a_norm_batch_is_one_views_images() -> None:
    learner = _learner()
    view1, view2 = _views()
    first = copy.deepcopy(learner)(view1, view2, details=True)[1]
    other = copy.deepcopy(learner)(view1, torch.rand_like(view2), details=True)[1]
    for name, tensor in vars(first).items():
        torch.testing.assert_close(tensor[0], vars(other)[name][0], rtol=0, atol=0)
        assert not torch.equal(tensor[1], vars(other)[name][1])


def _norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    return [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]


def test_target_normalises_by_its_batch_and_has_buffers_of_its_own() -> None:
    learner = _learner(independent=True)
    view1, view2 = _views()
    alone = copy.deepcopy(learner.target_encoder)
    _, details = learner(view1, view2, details=True)
    with torch.no_grad():
        targets = [learner.target_projector(alone(view)) for view in (view1, view2)]
    torch.testing.assert_close(torch.stack(targets), details.targets)
    for ours, theirs in zip(_norms(learner.target_encoder), _norms(alone), strict=True):
        assert ours.training and ours.num_batches_tracked == 2
        torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    online, target = (_norms(net)[0].running_mean for net in (learner.encoder, alone))
    assert online is not None and target is not None and not torch.equal(online, target)


def test_without_target_modules_it_is_a_copy() -> None:
    learner = _learner()
    for online, target in zip(
        _parameters(_online(learner)), _parameters(_target(learner)), strict=True
    ):
        assert torch.equal(online, target) and online is not target
    optimizer = torch.optim.SGD((p for p in learner.parameters() if p.requires_grad), lr=1.0)
    learner(*_views()).backward()
    optimizer.step()
    pairs = zip(_parameters(_online(learner)), _parameters(_target(learner)), strict=True)
    assert not all(torch.equal(online, target) for online, target in pairs)


def test_an_independent_target_is_kept_as_it_was_given() -> None:
    learner = _learner(independent=True)
    weights = [net.state_dict() for net in (learner.encoder, learner.target_encoder)]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("predictor", [nn.Identity, lambda: mlp(8, 8, 8, depth=1)])
def test_a_loop_of_ones_own(predictor: Callable[[], nn.Module]) -> None:
    learner = _learner()
    learner.predictor = predictor()
    optimizer = torch.optim.SGD((p for p in learner.parameters() if p.requires_grad), lr=0.05)
    views, losses = _views(), []
    for _ in range(8):
        loss = learner(*views)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        learner.update_target(0.9)
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_an_online_target_is_the_other_views_projection_behind_a_stop_gradient() -> None:
    learner = _learner(objective=Objective(target="online"))
    assert not list(learner.target_encoder.parameters())  # no second network
    views = _views()
    forwards: list[int] = []
    learner.encoder.register_forward_hook(lambda *_: forwards.append(1))
    loss, details = learner(*views, details=True)
    assert len(forwards) == 2
    assert torch.equal(details.targets, details.projections)
    p, z = details.predictions, details.projections
    expected = regression_loss(p[0], z[1]) + regression_loss(p[1], z[0])
    torch.testing.assert_close(loss.detach(), expected.mean())
    learner.update_target(0.5)


def test_the_gradient_passes_the_target_where_it_is_not_stopped() -> None:
    """Without predictor the loss is symmetric, so each side brings half of the gradient."""
    gradients = []
    for stops in (True, False):
        torch.manual_seed(1)
        learner = _learner(objective=Objective(target="online", stop_gradient=stops))
        learner.predictor = nn.Identity()
        learner.double()(*(view.double() for view in _views())).backward()
        gradients.append([p.grad for p in _parameters(_online(learner)) if p.grad is not None])
    for stopped, passed in zip(*gradients, strict=True):
        torch.testing.assert_close(2 * stopped, passed, rtol=1e-9, atol=1e-12)


def test_a_closed_form_predictor_is_solved_against_the_target_it_meets() -> None:
    learner = _learner(independent=True)
    learner.predictor = ClosedForm(1e-8)
    loss, details = learner(*_views(40), details=True)
    for view in (0, 1):
        z, t = details.projections[view].numpy(), details.targets[1 - view].numpy()
        best = z @ np.linalg.lstsq(z, t, rcond=None)[0]
        np.testing.assert_allclose(details.predictions[view], best, rtol=1e-3, atol=1e-4)
    loss.backward()
    assert all(p.grad is not None for p in _parameters(_online(learner)))


def test_a_hard_copy_is_made_after_every_third_step() -> None:
    learner = _learner(independent=True)
    copied = []
    for step in range(7):
        with torch.no_grad():
            for parameter in _parameters(_online(learner)):
                parameter.add_(0.1)
        before = copy.deepcopy(_parameters(_target(learner)))
        learner.update_target(schedules.target_decay(step, 7, 0.99, copy_every=3))
        pairs = [_parameters(_target(learner)), before, _parameters(_online(learner))]
        is_copy = all(torch.equal(now, online) for now, _, online in zip(*pairs, strict=True))
        is_kept = all(torch.equal(now, was) for now, was, _ in zip(*pairs, strict=True))
        assert is_copy != is_kept
        copied.append(is_copy)
    assert copied == [False, False, True, False, False, True, False]
