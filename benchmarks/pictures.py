"""The pictures that are timed: photographs drawn from noise, and CIFAR-10 where it is at hand.

A JPEG's cost depends on its size in pixels and bytes: these are 500 x 375 and about 100 KB, as the
photographs of ImageNet are.
"""

import os
from pathlib import Path

import numpy as np
from PIL import Image

CIFAR = Path(os.environ.get("BYOL_DATA", "")) / "cifar10"
SOURCE = "CIFAR-10" if CIFAR.is_dir() else "drawn pictures (BYOL_DATA/cifar10 is not there)"


def natural(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8 whose amplitudes fall with frequency, as in photographs."""
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    weight = 1 / np.maximum(np.hypot(fy, fx), 1 / max(height, width))  # (H, W / 2 + 1)
    noise = np.fft.rfft2(rng.standard_normal((4, height, width))) * weight
    planes = np.fft.irfft2(noise, (height, width))  # (4, H, W): a common plane and three colours
    values = planes[0][..., None] + 0.4 * np.moveaxis(planes[1:], 0, -1)
    return np.clip(values / values.std() * 55 + 120, 0, 255).astype(np.uint8)


def photographs(folder: Path, count: int) -> list[Path]:
    """So many JPEG files."""
    rng = np.random.default_rng(0)
    files = [folder / f"{i:03}.jpg" for i in range(count)]
    for file in files:
        Image.fromarray(natural(rng, 375, 500)).save(file, quality=85)
    return files


def small(count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first images (N, 32, 32, 3) uint8 of CIFAR-10 and their labels (N,)."""
    if not CIFAR.is_dir():
        rng = np.random.default_rng(0)
        return np.stack([natural(rng, 32, 32) for _ in range(count)]), rng.integers(0, 10, count)
    from byol.data.decode import decode
    from byol.data.source import open_splits

    source = open_splits(str(CIFAR)).train
    read = [source.read(i) for i in range(count)]
    return np.stack([decode(x, 3) for x, _ in read]), np.array([label for _, label in read])


def folder_of(folder: Path, count: int) -> Path:
    """The same as PNG files, one folder a class."""
    for i, (image, label) in enumerate(zip(*small(count), strict=True)):
        home = folder / str(label)
        home.mkdir(exist_ok=True)
        Image.fromarray(image).save(home / f"{i:05}.png")
    return folder
