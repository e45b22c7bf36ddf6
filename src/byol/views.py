"""Views: draws from a ViewSpec and their application to a batch of crops (paper appendix B;
official `byol/utils/augmentations.py: postprocess`).

All draws are per image and per view, gates included, and depend on nothing but (seed, epoch,
image index, view).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from byol import ops, rng
from byol.viewspec import ViewSpec

_STREAMS = (3, 4)  # streams of random numbers for the draws of view 1 and view 2
_COLOUR_OPS = (  # the last two stay within [0, 1] by themselves
    lambda x, delta: ops.adjust_brightness(x, delta, out=x).clamp_(0, 1),
    lambda x, factor: ops.adjust_contrast(x, factor, out=x).clamp_(0, 1),
    lambda x, factor: ops.adjust_saturation(x, factor, out=x),
    lambda x, delta: ops.adjust_hue(x, delta, out=x),
)
_PIXELS = 2**19  # of the images that are worked on together on a CPU
_ALONE = 32  # so few images are not worth the copies that grouping them takes


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


def _on(
    x: Tensor, mask: np.ndarray, operation: Callable[..., Tensor], *parameters: np.ndarray
) -> Tensor:
    """x (n, C, S, S), the operation done on the images of mask (n,), maybe in place; parameters
    (n, ...). Where it is all of them nothing is copied."""
    count = np.count_nonzero(mask)
    if count == 0:
        return x
    if count == len(mask):
        return operation(x, *map(torch.from_numpy, parameters))
    given = [torch.from_numpy(p[mask]) for p in parameters]
    if x.device.type == "cpu":  # NumPy copies images faster
        array = x.numpy()
        array[mask] = operation(torch.from_numpy(array[mask]), *given).numpy()
        return x
    at = torch.from_numpy(mask.nonzero()[0]).to(x.device)
    return x.index_copy_(0, at, operation(x.index_select(0, at), *given))


def jitter_colours(x: Tensor, params: np.ndarray, order: np.ndarray) -> Tensor:
    """Four colour operations on each image, in its own order, clipped to [0, 1] after each.

    x (N, C, H, W), maybe changed in place; params and order (N, 4); an order of -1 is none. Images
    are grouped by the operation whose turn it is, so each operation sees only its images. Where C
    is not 3, saturation and hue have no meaning and are left out.
    """
    kinds = range(4 if x.shape[1] == 3 else 2)
    for turn in order.T:
        for k in set(turn.tolist()).intersection(kinds):
            x = _on(x, turn == k, _COLOUR_OPS[k], params[:, k])
    return x


def apply(crops: Tensor, draws: Draws, cut: bool = False) -> Tensor:
    """Crops (B, C, S, S), uint8 or floats in [0, 1], to the view (B, C, S, S) in [0, 1], channels
    last in memory. cut: of the blur, see ops.gaussian_blur.

    Order: flips and turns, colour jitter, grey, blur, solarize, clip. An operation is computed
    for the images that drew it and for no others, and on a CPU by as many images at a time as its
    cache holds: photographs go one by one.
    """
    dtype = crops.dtype if crops.is_floating_point() else torch.float32
    view = torch.empty(
        crops.shape, dtype=dtype, device=crops.device, memory_format=torch.channels_last
    )
    few = len(crops)
    if crops.device.type == "cpu":
        few = _PIXELS // (crops.shape[2] * crops.shape[3])
        few = few if few > _ALONE else 1
    for start in range(0, len(crops), few):
        part = slice(start, start + few)
        drawn = Draws(**{name: array[part] for name, array in vars(draws).items()})
        turned = _turn(crops[part], drawn)
        x = turned.to(dtype, copy=True).contiguous()
        view[part] = _colour(x if crops.is_floating_point() else x.div_(255), drawn, cut)
    return view


def _turn(crops: Tensor, draws: Draws) -> Tensor:
    """Flips and turns (n, C, S, S), of bytes still where they are bytes; crops stay."""
    turned = draws.turns > 0
    moved = draws.flip | draws.flip_vertical | turned
    crops = crops.clone() if moved.any() and len(crops) > 1 else crops  # else _on writes into them
    crops = _on(crops, draws.flip, lambda x: x.flip(3))
    crops = _on(crops, draws.flip_vertical, lambda x: x.flip(2))
    return _on(crops, turned, ops.quarter_turns, draws.turns)


def _colour(x: Tensor, draws: Draws, cut: bool) -> Tensor:
    """The rest, on (n, C, S, S) in [0, 1], maybe in place; (n, 1, S, S) where all are grey."""
    x = jitter_colours(x, draws.jitter_params, np.where(draws.jitter[:, None], draws.order, -1))
    if x.shape[1] == 3:
        x = _on(x, draws.grey, ops.grayscale)
        x = x[:, :1] if draws.grey.all() else x
    if (taps := ops.blur_kernel_size(x.shape[2])) > 1:
        blur = partial(ops.gaussian_blur, kernel_size=taps, cut=cut)
        x = _on(x, draws.blur, blur, draws.sigma)
    x = _on(x, draws.solarize, ops.solarize, draws.threshold)
    return x.clamp_(0, 1)


def make_views(
    crops: Tensor,
    specs: tuple[ViewSpec, ViewSpec],
    seed: int,
    epoch: np.ndarray,
    index: np.ndarray,
    cut: bool = False,
) -> tuple[Tensor, Tensor]:
    """Crops (B, 2, C, S, S) to the two views (B, C, S, S) in [0, 1]; cut: see ops.gaussian_blur."""
    drawn = [vars(draw(specs[v], seed, epoch, index, v)) for v in (0, 1)]
    both = Draws(**{name: np.concatenate([d[name] for d in drawn]) for name in drawn[0]})
    view1, view2 = apply(crops.transpose(0, 1).flatten(0, 1), both, cut).chunk(2)
    return view1, view2
