"""Read a set of same-size images into memory once."""

import torch
from torch import Tensor

from byol.data.reader import BadFiles, Decoder


def load_all(decoder: Decoder, bad_share: float = 0.1) -> tuple[Tensor, Tensor, list[str]] | None:
    """Images (N, C, H, W) uint8 or float32, labels (N,) int64 (-1 without), undecodable files.

    None as soon as an image of another size turns up: the caller then reads files as it goes.
    """
    n = len(decoder.source)
    judge = BadFiles(decoder.source, bad_share)
    labels = torch.empty(n, dtype=torch.int64)
    images = torch.empty(0)
    for i in range(n):
        image, labels[i], bad = decoder.read_or_replace(i)  # (1, C, H, W)
        judge.add(1, bad)
        if i == 0:
            images = torch.empty((n, *image.shape[1:]), dtype=image.dtype)
        if image.shape[1:] != images.shape[1:]:
            return None
        images[i] = image[0]
    return images, labels, judge.bad
