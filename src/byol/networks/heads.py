"""Projector and predictor (paper section 3.3; class `MLP` of the official
`byol/utils/networks.py`)."""

from collections.abc import Callable

from torch import nn


def mlp(
    d_in: int,
    d_hidden: int,
    d_out: int,
    depth: int = 2,
    norm: Callable[[int], nn.Module] = nn.BatchNorm1d,
) -> nn.Module:
    """`depth` linear layers, (B, d_in) to (B, d_out), with norm and ReLU between them.

    The linears before the last have a bias although a norm follows, the last has none, and no
    norm or activation comes after it: as in the official code. Depth 1 is one linear layer, depth
    0 nothing at all (then d_in must equal d_out, else ValueError).
    """
    if depth == 0:
        if d_in != d_out:
            raise ValueError(f"depth 0 passes {d_in} features through, but {d_out} are asked for")
        return nn.Identity()
    layers: list[nn.Module] = []
    for _ in range(depth - 1):
        layers += [nn.Linear(d_in, d_hidden), norm(d_hidden), nn.ReLU(inplace=True)]
        d_in = d_hidden
    return nn.Sequential(*layers, nn.Linear(d_in, d_out, bias=False))
