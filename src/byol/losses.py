"""The loss of BYOL, squared distance of normalised vectors (paper section 3.1, equation 2; official
`byol/utils/helpers.py`), and the contrastive one that it belongs to (paper section 5)."""

import torch
from torch import Tensor


def l2_normalize(x: Tensor, epsilon: float = 1e-12, dim: int = -1) -> Tensor:
    """x / sqrt(max(sum x^2, epsilon)) over the axis `dim`, (..., D) to (..., D).

    The floor is on the *squared* norm, as in the official code: vectors shorter than 1e-6 are not
    stretched to length 1, and 0 stays 0.
    """
    return x * x.square().sum(dim, keepdim=True).clamp_min(epsilon).rsqrt()


def normalise(x: Tensor, how: str) -> Tensor:
    """(B, D) to (B, D), rows of unit length or, for "batch", of unit mean square length.

    "l2": x / |x|. "layer": each row less its mean, over its deviation and sqrt(D). "batch": each
    column less its mean, over its deviation and sqrt(D). "none": x itself. Deviations are biased
    and there is no affine map (paper appendix, table on loss normalisation).
    """
    if how == "l2":
        return l2_normalize(x)
    if how == "layer":  # deviation * sqrt(D) is the centred row's length
        return l2_normalize(x - x.mean(-1, keepdim=True))
    if how == "batch":  # deviation * sqrt(B) is the centred column's length
        return l2_normalize(x - x.mean(0), dim=0) * (x.shape[0] / x.shape[1]) ** 0.5
    return x


def regression_loss(p: Tensor, z: Tensor, normalisation: str = "l2") -> Tensor:
    """Squared distance of normalised predictions and projections, (..., D) to (...), in [0, 4].

    Equal to 2 - 2 cos(p, z) for vectors longer than 1e-6. Half-precision input is computed in
    float32. No gradient is stopped here: pass z detached. `normalisation` is one of `normalise`,
    "batch" for (B, D) alone; the range is for "l2" and "layer".
    """
    if p.dtype in (torch.float16, torch.bfloat16):
        p, z = p.float(), z.float()
    return (normalise(p, normalisation) - normalise(z, normalisation)).square().sum(-1)


def info_nce(p: Tensor, other: Tensor, same: Tensor, alpha: float, beta: float) -> Tensor:
    """2 - InfoNCE(alpha, beta) of each image, (B, D) each to (B,) (paper section 5 and appendix).

    p are one view's predictions, `other` and `same` the targets of the other view and of the same.
    With S the cosine, image i has 2 - 2 S(p_i, other_i) + 2 alpha beta ln(sum over j != i of
    exp(S(p_i, same_j) / alpha) + sum over all j of exp(S(p_i, other_j) / alpha)).

    The paper maximises InfoNCE; the 2 makes beta = 0 the loss of BYOL. With beta = 1 it is 2 plus
    2 alpha times SimCLR's NT-Xent of these anchors. Computed in float32 at least.
    """
    loss = regression_loss(p, other)  # (B,)
    with torch.autocast(p.device.type, enabled=False):
        p, other, same = (l2_normalize(x.to(loss.dtype)) for x in (p, other, same))
        itself = torch.eye(len(p), dtype=torch.bool, device=p.device)
        within = (p @ same.T).masked_fill(itself, -torch.inf)  # (B, B)
        cosines = torch.cat((within, p @ other.T), 1)  # (B, 2B)
        return loss + 2 * alpha * beta * (cosines / alpha).logsumexp(1)
