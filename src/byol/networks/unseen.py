"""Weights of a convolution that meet nothing but padding, as its input is smaller than its kernel.

The last group of a ResNet sees images of 32 pixels as maps of 1x1: eight of its nine taps never
meet a pixel. They change no feature and get no gradient, yet they count in the norms of LARS, whose
trust ratio then moves the ninth three times as far as it moves any other weight.
"""

import torch
from torch import Tensor, nn


@torch.no_grad()
def zero_unseen_(module: nn.Module, in_chans: int, image_size: int) -> int:
    """Set to 0 what no pixel of images (B, in_chans, S, S) reaches; returns how many weights.

    Convolutions with zero padding of their own are looked at; others stay as they are.
    """
    count = 0

    def look(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal count
        if not isinstance(layer, nn.Conv2d) or isinstance(layer.padding, str):
            return
        rows, columns = (_seen(layer, axis, inputs[0].shape[2 + axis]) for axis in (0, 1))
        unseen = ~(rows[:, None] & columns)  # (kernel height, kernel width)
        if unseen.any():
            layer.weight[:, :, unseen] = 0
            count += int(unseen.sum()) * layer.weight.shape[0] * layer.weight.shape[1]

    hooks = [layer.register_forward_pre_hook(look) for layer in module.modules()]
    was_training = module.training
    weight = next(module.parameters())
    module.eval()(weight.new_zeros(1, in_chans, image_size, image_size))
    module.train(was_training)
    for hook in hooks:
        hook.remove()
    return count


def _seen(layer: nn.Conv2d, axis: int, size: int) -> Tensor:
    """(kernel size,) whether each tap meets a pixel of an axis of `size` pixels."""
    kernel, stride = layer.kernel_size[axis], layer.stride[axis]
    dilation, padding = layer.dilation[axis], int(layer.padding[axis])
    outputs = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    first = torch.arange(outputs) * stride - padding  # pixel under tap 0 of each output
    pixel = first[:, None] + dilation * torch.arange(kernel)  # (outputs, kernel)
    return ((pixel >= 0) & (pixel < size)).any(0)
