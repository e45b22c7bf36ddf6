"""Norm layers by name: batch norm over the batch or over groups of images, with torch's running
averages or those of the official code (Haiku's `BatchNorm` and `ExponentialMovingAverage`, as set
up in the official `byol/configs/byol.py`), and what stands in their place without batch statistics
(arXiv 2010.10241).
"""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from byol.networks.spanning import normalise


def norm_layer(
    kind: str, maps: bool = True, reference: bool = False, images: int | None = None
) -> Callable[[int], nn.Module]:
    """Channels to layer, for feature maps (B, C, H, W) or else vectors (B, C).

    "batch" (`images`: over groups of so many; `reference`: the official averages), "group" (32
    groups), "group-ws" (16), fewer where there are few channels, "layer", or "none" (Affine).
    """
    if kind == "batch":
        if reference:
            return partial(DebiasedBatchNorm, images=images)
        if images:
            return partial(GroupedBatchNorm, images=images)
        return nn.BatchNorm2d if maps else nn.BatchNorm1d
    if kind == "layer":
        return partial(nn.GroupNorm, 1) if maps else nn.LayerNorm
    if kind == "none":
        return Affine
    return partial(_group_norm, 16 if kind == "group-ws" else 32)


def _group_norm(most: int, channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(most, max(channels // 2, 1)), channels)


class GroupedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm of (B, C) or (B, C, H, W) over groups of `images` images (None: the whole batch).

    Each group is normalised as a batch of its own, as on so many devices without synchronisation.
    The running averages take the mean of the groups' statistics, once per forward. Where `images`
    does not divide B, the groups are as equal as they can be.
    """

    spans = False  # whether a batch is that of all processes; see span_

    def __init__(self, num_features: int, images: int | None = None) -> None:
        super().__init__(num_features)
        self.images = images

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected (B, C) or (B, C, H, W), got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        mean, var, count = self.running_mean, self.running_var, self.num_batches_tracked
        assert mean is not None and var is not None and count is not None
        if not self.training:
            return F.batch_norm(input, mean, var, self.weight, self.bias, False, 0.0, self.eps)
        output, means, variances, values = self._normalise(input)
        with torch.no_grad():
            count.add_(1)
            self._average(mean, var, count, means.mean(0), variances.mean(0), values)
        return output

    def _normalise(self, input: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
        """The output, each group's mean and unbiased variance (G, C), and the values in a group."""
        if self.spans:
            return normalise(input, self.weight, self.bias, self.eps, self.images)
        assert self.running_mean is not None
        groups = max(1, len(input) // self.images) if self.images else 1
        parts = input.tensor_split(groups) if groups > 1 else (input,)
        # Momentum 1 makes the fused kernel hand out the batch's own mean and unbiased variance.
        means, variances = self.running_mean.new_zeros(2, groups, self.num_features)
        outputs = [
            F.batch_norm(part, m, v, self.weight, self.bias, True, 1.0, self.eps)
            for part, m, v in zip(parts, means, variances, strict=True)
        ]
        values = input.numel() // input.shape[1] // groups
        return torch.cat(outputs) if groups > 1 else outputs[0], means, variances, values

    def _average(
        self, mean: Tensor, var: Tensor, count: Tensor, new_mean: Tensor, new_var: Tensor, n: int
    ) -> None:
        """Move the running averages towards a batch's mean and unbiased variance, of n values."""
        weight = 1 / count if self.momentum is None else self.momentum  # None: plain average
        mean.lerp_(new_mean, weight)
        var.lerp_(new_var, weight)


class DebiasedBatchNorm(GroupedBatchNorm):
    """Batch norm with the running averages of the official code: bias-corrected.

    They differ from torch's in two ways: the running variance averages the biased variance, and
    both averages are corrected for their start as Adam's are, so after one batch they equal that
    batch's statistics and the initial values never count.

    The corrected averages themselves are the buffers `running_mean` and `running_var`, so the
    weights work in `nn.BatchNorm1d` and `nn.BatchNorm2d` in evaluation mode as they are. Haiku's
    hidden sum is average * (1 - 0.9^count), which turns its update into
    average + w (value - average), w = 0.1 / (1 - 0.9^(count + 1)).

    `nn.SyncBatchNorm.convert_sync_batchnorm` would replace it by torch's averages.
    """

    def _average(
        self, mean: Tensor, var: Tensor, count: Tensor, new_mean: Tensor, new_var: Tensor, n: int
    ) -> None:
        if self.momentum is None:
            weight = 1 / count
        else:
            weight = self.momentum / (1 - (1 - self.momentum) ** count.to(mean.dtype))  # ()
        mean.lerp_(new_mean, weight)
        var.lerp_(new_var * ((n - 1) / n), weight)


class _Activated(GroupedBatchNorm):
    """timm's batch norms end in a drop layer and an activation."""

    def __init__(self, given: nn.Module) -> None:
        super().__init__(int(given.num_features))  # type: ignore[arg-type]
        self.drop, self.act = given.drop, given.act

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = self.act(self.drop(super().forward(input)))  # type: ignore[operator]
        return output


def span_(module: nn.Module, images: int) -> None:
    """Make the batch norms of a module take their statistics over all processes, in place.

    images: of one process that pass at once. A norm whose groups lie within one process stays as it
    is. Parameters and buffers remain the same objects; on GPUs torch's own SyncBatchNorm is taken
    where it can be.
    """
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, GroupedBatchNorm):
                layer.spans = not layer.images or images % layer.images > 0
            elif isinstance(layer, nn.modules.batchnorm._BatchNorm):
                setattr(parent, name, _spanning(layer))


def _spanning(layer: nn.modules.batchnorm._BatchNorm) -> nn.Module:
    """A norm that spans processes in the place of torch's or timm's."""
    has_more = hasattr(layer, "act")
    if layer.running_mean is None or isinstance(layer, nn.SyncBatchNorm):
        return layer
    if layer.running_mean.is_cuda and not has_more:
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(layer)
        return converted
    spanning = _Activated(layer) if has_more else GroupedBatchNorm(layer.num_features)
    spanning.eps, spanning.momentum, spanning.spans = layer.eps, layer.momentum, True
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        setattr(spanning, name, getattr(layer, name))
    return spanning


def own_averages(module: nn.Module) -> list[Tensor]:
    """The running averages that are of one process's images alone. They are linear in what they
    average, so their mean over processes is the average over all images."""
    return [
        average
        for layer in module.modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm)
        and not isinstance(layer, nn.SyncBatchNorm)
        and not getattr(layer, "spans", False)
        for average in (layer.running_mean, layer.running_var)
        if average is not None
    ]


class Affine(nn.Module):
    """Scale and offset of each channel of (B, C) or (B, C, H, W), and no normalisation.

    `initialise_affine_` sets them once so that a batch leaves as batch norm would make it leave;
    from then on they are parameters like any other.
    """

    takes_next = False  # whether the next batch sets scale and offset

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(torch.ones(channels)),
            nn.Parameter(torch.zeros(channels)),
        )

    def forward(self, input: Tensor) -> Tensor:
        if self.takes_next:
            self._set(input.detach())
        weight, bias = self.weight.to(input.dtype), self.bias.to(input.dtype)
        shape = (-1, *(1,) * (input.ndim - 2))
        return torch.addcmul(bias.view(shape), input, weight.view(shape))

    @torch.no_grad()
    def _set(self, input: Tensor) -> None:
        axes = [axis for axis in range(input.ndim) if axis != 1]
        var, mean = torch.var_mean(input.to(self.weight.dtype), axes, correction=0)  # (C,), (C,)
        self.weight.mul_((var + 1e-5).rsqrt())  # zero gamma stays 0
        self.bias.sub_(mean * self.weight)
        self.takes_next = False


@torch.no_grad()
def initialise_affine_(module: nn.Module, forward: Callable[[], object]) -> None:
    """Set every Affine of `module` from the first batch that `forward()` sends through it.

    In the order of the batch's way, so that each layer sees what the layers before it, already
    set, make of it. Without an Affine, nothing is done.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, Affine)]
    for layer in layers:
        layer.takes_next = True
    if layers:
        forward()
    for layer in layers:
        layer.takes_next = False
