"""Activation checkpointing: less is kept, and nothing else differs."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from byol.checks import check
from byol.config import Config
from byol.errors import UserError
from byol.learner import Byol
from byol.networks.convnet import ConvNet
from byol.networks.heads import mlp
from byol.networks.norm import DebiasedBatchNorm
from byol.networks.recompute import recompute_
from byol.networks.resnet import ResNet
from byol.options import with_options


def _encoder(kind: str) -> nn.Module:
    if kind == "convnet":
        return ConvNet(4)
    options: dict[str, Any] = {"stem": "small", "stem_channels": 8}
    return ResNet((1, 1, 1, 1), (8, 8, 16, 16), False, norm=DebiasedBatchNorm, **options)


class _Masked(nn.Module):
    """Dropout in a block: its second pass must draw the mask of its first."""

    num_features = 6

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(nn.Linear(192, 6), nn.Sequential(nn.Dropout(), nn.Tanh()))

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.blocks(x.flatten(1))
        return features


@pytest.mark.parametrize("kind", ["convnet", "resnet", "masked"])
def test_gradients_and_norm_averages_are_the_same(kind: str) -> None:
    encoder = _Masked() if kind == "masked" else _encoder(kind)
    features = int(encoder.num_features)  # type: ignore[arg-type]
    plain = Byol(encoder, mlp(features, 8, 4), mlp(4, 8, 4)).double()
    saving = copy.deepcopy(plain)
    recompute_(saving.encoder)
    views = torch.rand(2, 6, 3, 8, 8, dtype=torch.float64).unbind()
    for learner in (plain, saving):
        torch.manual_seed(3)
        learner(*views).backward()
    online = [p for p in plain.parameters() if p.requires_grad]
    for ours, other in zip(
        online, (p for p in saving.parameters() if p.requires_grad), strict=True
    ):
        torch.testing.assert_close(other.grad, ours.grad, rtol=1e-12, atol=1e-14)
    theirs = saving.state_dict()
    assert list(theirs) == list(plain.state_dict())
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(theirs[name], value, rtol=0, atol=0, msg=name)


def test_less_is_kept_for_the_backward_pass() -> None:
    plain, saving = (_encoder("resnet") for _ in "ab")
    recompute_(saving)

    def kept(encoder: nn.Module) -> int:
        sizes: dict[int, int] = {}

        def pack(x: Tensor) -> Tensor:
            sizes[x.data_ptr()] = x.numel()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            encoder(torch.rand(4, 3, 16, 16))
        return sum(sizes.values())

    assert kept(saving) < 0.5 * kept(plain)


@pytest.mark.parametrize("other", ["compile", "cuda_graph"])
def test_it_does_not_go_with(other: str) -> None:
    with pytest.raises(UserError, match="leave out one of them"):
        check(with_options(Config(), {"checkpointing": True, other: True}))
