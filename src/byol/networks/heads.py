"""Projector and predictor (paper section 3.3; class `MLP` of the official
`byol/utils/networks.py`), and the predictor that is solved for (paper appendix, "importance of
the near-optimal predictor")."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from byol.networks.spanning import gathered


def mlp(
    d_in: int,
    d_hidden: int,
    d_out: int,
    depth: int = 2,
    norm: Callable[[int], nn.Module] = nn.BatchNorm1d,
    linear: Callable[..., nn.Linear] = nn.Linear,
    output_norm: bool = False,
) -> nn.Module:
    """`depth` linear layers, (B, d_in) to (B, d_out), with norm and ReLU between them.

    The linears before the last have a bias although a norm follows, the last has none, and no
    norm or activation comes after it: as in the official code. Depth 1 is one linear layer, depth
    0 nothing at all (then d_in must equal d_out, else ValueError).

    `linear` makes the linear layers. `output_norm` adds a norm at the end, without its scale and
    offset (SimSiam, MoCo v3).
    """
    if depth == 0:
        if d_in != d_out:
            raise ValueError(f"depth 0 passes {d_in} features through, but {d_out} are asked for")
        return nn.Identity()
    layers: list[nn.Module] = []
    for _ in range(depth - 1):
        layers += [linear(d_in, d_hidden), norm(d_hidden), nn.ReLU(inplace=True)]
        d_in = d_hidden
    layers.append(linear(d_in, d_out, bias=False))
    if output_norm:
        last = norm(d_out)
        last.weight = last.bias = None  # type: ignore[assignment]
        layers.append(last)
    return nn.Sequential(*layers)


class ClosedForm(nn.Module):
    """The linear predictor that is best for the batch: z Q*, (B, P) to (B, P).

    Q* = (z'z + r I)^-1 z't for targets t, r being `ridge` times the mean square of z's columns.
    No gradient passes through Q* (section 3.2: at the optimum it would be 0 but for the loss's
    normalisation). Solved in float32 at least.
    """

    def __init__(self, ridge: float = 1e-6) -> None:
        super().__init__()
        self.ridge = ridge

    def forward(self, z: Tensor, target: Tensor, spans: bool = False) -> Tensor:
        """`spans`: the batch is that of all processes."""
        with torch.autocast(z.device.type, enabled=False):
            z = z.to(torch.promote_types(z.dtype, torch.float32))
            batch = z.detach(), target.detach().to(z.dtype)
            if spans:
                batch = gathered(batch[0]), gathered(batch[1])
            return z @ ridge_regression(*batch, self.ridge)


def ridge_regression(z: Tensor, target: Tensor, ridge: float) -> Tensor:
    """Q (P, T) that minimises |z Q - t|^2 + r |Q|^2 for z (B, P) and t (B, T), r = ridge |z|^2 / P.

    Rows sqrt(r) I under z, 0 under t make it plain least squares, which is better conditioned
    than the normal equations and of full rank even where B < P.
    """
    n = z.shape[1]
    strength = (ridge * z.square().sum() / n).clamp_min(1e-24).sqrt()
    rows = torch.cat((z, strength * torch.eye(n, dtype=z.dtype, device=z.device)))  # (B + P, P)
    values = torch.cat((target, target.new_zeros(n, target.shape[1])))  # (B + P, T)
    solution: Tensor = torch.linalg.lstsq(rows, values, driver="gels").solution
    return solution
