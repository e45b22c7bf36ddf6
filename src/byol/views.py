"""Views: draws from a ViewSpec and their application to a batch of crops (paper appendix B;
official `byol/utils/augmentations.py: postprocess`).

All draws are per image and per view, gates included, and depend on nothing but (seed, epoch,
image index, view).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from byol import ops, rng
from byol.viewspec import ViewSpec

_STREAMS = (3, 4)  # streams of random numbers for the draws of view 1 and view 2
COLOUR_OPS = (
    ops.adjust_brightness,
    ops.adjust_contrast,
    ops.adjust_saturation,
    ops.adjust_hue,
)


@dataclass(frozen=True)
class Draws:
    """What was drawn for each image of a batch; arrays (B,) but for `jitter_params`, `order`."""

    flip: np.ndarray  # bool
    flip_vertical: np.ndarray  # bool
    turns: np.ndarray  # int64 in 0..3, quarter turns
    jitter: np.ndarray  # bool
    jitter_params: np.ndarray  # (B, 4): brightness delta, contrast and saturation factor, hue delta
    order: np.ndarray  # (B, 4): the colour operations in the order of application
    grey: np.ndarray  # bool
    blur: np.ndarray  # bool
    sigma: np.ndarray  # pixels
    solarize: np.ndarray  # bool
    threshold: np.ndarray  # of solarize


def draw(spec: ViewSpec, seed: int, epoch: np.ndarray, index: np.ndarray, view: int) -> Draws:
    """The draws of view 0 or 1 for the images `index` (B,) at their visits `epoch` (B,)."""
    u = rng.uniforms(seed, _STREAMS[view], epoch, index, 18)  # (B, 18)
    strengths = np.array([spec.brightness, spec.contrast, spec.saturation, spec.hue])
    centres = np.array([0.0, 1.0, 1.0, 0.0])
    return Draws(
        flip=u[:, 0] < spec.flip,
        flip_vertical=u[:, 1] < spec.flip_vertical,
        turns=np.where(u[:, 2] < spec.rotate, 1 + (u[:, 3] * 3).astype(np.int64), 0),
        jitter=u[:, 4] < spec.jitter,
        jitter_params=centres + strengths * (2 * u[:, 5:9] - 1),
        order=u[:, 9:13].argsort(axis=1, kind="stable"),
        grey=u[:, 13] < spec.grey,
        blur=u[:, 14] < spec.blur,
        sigma=spec.blur_sigma_min + (spec.blur_sigma_max - spec.blur_sigma_min) * u[:, 15],
        solarize=u[:, 16] < spec.solarize,
        threshold=np.full(len(index), spec.solarize_threshold),
    )


def _chosen(mask: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(mask.nonzero()[0]).to(device)


def jitter_colours(x: Tensor, params: np.ndarray, order: np.ndarray) -> Tensor:
    """Four colour operations on each image, in its own order, clipped to [0, 1] after each.

    x (N, C, H, W), changed in place; params and order (N, 4). Images are grouped by the operation
    whose turn it is, so each operation sees only its images. Where C is not 3, saturation and hue
    have no meaning and are left out.
    """
    parameters = torch.from_numpy(params).to(x.device, x.dtype)  # (N, 4)
    for turn in range(4):
        for k, operation in enumerate(COLOUR_OPS):
            if x.shape[1] != 3 and k >= 2:
                continue
            at = _chosen(order[:, turn] == k, x.device)  # (n,)
            if len(at):
                x[at] = operation(x[at], parameters[at, k]).clamp_(0, 1)
    return x


def apply(crops: Tensor, draws: Draws) -> Tensor:
    """Crops (B, C, S, S), uint8 or floats in [0, 1], to the view (B, C, S, S) in [0, 1].

    Order: flips and turns, colour jitter, grey, blur, solarize, clip. An operation is computed
    for the images that drew it and for no others.
    """
    device = crops.device
    x = crops.to(torch.float32) / 255 if crops.dtype == torch.uint8 else crops.clone()
    flip = torch.from_numpy(draws.flip).to(device)
    x = ops.horizontal_flip(x, flip)  # (B, C, S, S)
    if draws.flip_vertical.any():
        x = ops.vertical_flip(x, torch.from_numpy(draws.flip_vertical).to(device))
    if draws.turns.any():
        x = ops.quarter_turns(x, torch.from_numpy(draws.turns).to(device))
    if draws.jitter.any():
        at = _chosen(draws.jitter, device)
        mask = draws.jitter
        x[at] = jitter_colours(x[at], draws.jitter_params[mask], draws.order[mask])
    if draws.grey.any() and x.shape[1] == 3:
        at = _chosen(draws.grey, device)
        x[at] = ops.grayscale(x[at])
    taps = ops.blur_kernel_size(x.shape[2])
    if draws.blur.any() and taps > 1:
        at = _chosen(draws.blur, device)
        sigma = torch.from_numpy(draws.sigma[draws.blur]).to(device)
        x[at] = ops.gaussian_blur(x[at], sigma, taps)
    if draws.solarize.any():
        at = _chosen(draws.solarize, device)
        threshold = torch.from_numpy(draws.threshold[draws.solarize]).to(device)
        x[at] = ops.solarize(x[at], threshold)
    return x.clamp_(0, 1)


def make_views(
    crops: Tensor,
    specs: tuple[ViewSpec, ViewSpec],
    seed: int,
    epoch: np.ndarray,
    index: np.ndarray,
) -> tuple[Tensor, Tensor]:
    """Crops (B, 2, C, S, S) to the two views (B, C, S, S) in [0, 1].

    Both views go through each operation together: half the calls for the same arithmetic.
    """
    drawn = [vars(draw(specs[v], seed, epoch, index, v)) for v in (0, 1)]
    both = Draws(**{name: np.concatenate([d[name] for d in drawn]) for name in drawn[0]})
    x = apply(crops.transpose(0, 1).flatten(0, 1), both)  # (2B, C, S, S)
    view1, view2 = x.chunk(2)
    return view1, view2
