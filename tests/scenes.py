"""Drawn scenes for the tests of dense prediction: depth of planes and spheres, masks of shapes."""

from pathlib import Path

import numpy as np
from PIL import Image

SHAPES = ("ground", "wall", "disc")
_COLOURS = np.array([[90, 90, 90], [60, 80, 200], [200, 60, 50]])


def depth_scene(seed: int, width: int = 80, height: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (H, W, 3) uint8 and depth (H, W) in metres along the axis of a pinhole camera: a wall
    across it at 3 to 6 m, a floor 1.2 m below, a ball on the way. The nearest one is seen."""
    random = np.random.default_rng(seed)
    wall, distance = random.uniform(3, 6), random.uniform(1.5, 2.5)
    centre, radius = np.array([random.uniform(-0.5, 0.5), 0.3, distance]), 0.5
    y, x = np.mgrid[:height, :width]
    ray = np.stack([(x - width / 2 + 0.5), (y - height / 2 + 0.5), np.full_like(x, width)], -1)
    ray = ray / width  # (H, W, 3), z = 1: a multiple of it is a depth
    with np.errstate(divide="ignore"):
        floor = np.where(ray[..., 1] > 0, 1.2 / ray[..., 1], np.inf)
    a, b = (ray**2).sum(-1), ray @ centre
    root = b**2 - a * (centre @ centre - radius**2)
    ball = np.where(root > 0, (b - np.sqrt(np.maximum(root, 0))) / a, np.inf)
    surfaces = np.stack([np.full_like(floor, wall), floor, ball])
    depth, which = surfaces.min(0), surfaces.argmin(0)
    colour = np.array([[190, 180, 160], [110, 90, 60], [200, 60, 50]])[which]
    pixels = colour / (0.6 + 0.25 * depth[..., None]) + random.normal(0, 3, (height, width, 1))
    return pixels.clip(0, 255).astype(np.uint8), depth


def write_depth(root: Path, train: int, test: int, width: int = 80, height: int = 60) -> Path:
    """Pairs rgb/NAME.png and depth/NAME.png (16-bit millimetres), lists train.txt and test.txt."""
    for folder in ("rgb", "depth"):
        (root / folder).mkdir(parents=True)
    names = [f"scene.{i}" for i in range(train + test)]  # a dot, as in names of frames
    for i, name in enumerate(names):
        pixels, depth = depth_scene(i, width, height)
        Image.fromarray(pixels).save(root / "rgb" / f"{name}.png")
        millimetres = np.rint(1000 * depth).astype(np.uint16)
        millimetres[:2] = 0  # not measured
        Image.fromarray(millimetres).save(root / "depth" / f"{name}.png")
    (root / "train.txt").write_text("\n".join(names[:train]) + "\n")
    (root / "test.txt").write_text("\n".join(names[train:]) + "\n")
    return root


def mask_scene(seed: int, side: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (S, S, 3) uint8 and classes (S, S) uint8: SHAPES, with unlabelled outlines (255) of 3
    pixels, as VOC2012 has them."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    (cx, cy), radius = random.uniform(0.35, 0.65, 2), random.uniform(0.26, 0.32)
    horizon, slope = random.uniform(0.35, 0.65), random.uniform(-0.3, 0.3)
    inside = [horizon + slope * (x - 0.5) - y, radius - np.hypot(x - cx, y - cy)]  # above 0
    mask = np.zeros((side, side), np.uint8)
    for index, field in enumerate(inside, 1):
        mask[field > 0] = index
    pixels = _COLOURS[mask] + random.normal(0, 6, (side, side, 1))
    hidden = inside[1] > 0  # the horizon behind the disc
    mask[(abs(inside[0]) < 1.5 / side) & ~hidden] = 255
    mask[abs(inside[1]) < 1.5 / side] = 255
    return pixels.clip(0, 255).astype(np.uint8), mask


def write_voc(root: Path, train: int, test: int, side: int = 64, classes: bool = True) -> Path:
    """The layout of VOC2012, palette masks, with classes.txt if asked for."""
    lists = root / "ImageSets" / "Segmentation"
    for folder in (root / "JPEGImages", root / "SegmentationClass", lists):
        folder.mkdir(parents=True)
    names = [f"2007_{i:06d}" for i in range(train + test)]
    for i, name in enumerate(names):
        pixels, mask = mask_scene(i, side)
        Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
        save_mask(root / "SegmentationClass" / f"{name}.png", mask)
    (lists / "train.txt").write_text("\n".join(names[:train]) + "\n")
    (lists / "val.txt").write_text("\n".join(names[train:]) + "\n")
    if classes:
        (root / "classes.txt").write_text("\n".join(SHAPES) + "\n")
    return root


def save_mask(path: Path, mask: np.ndarray) -> None:
    image = Image.fromarray(mask, "L").convert("P")
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes())
    image.putdata(mask.flatten().tolist())
    image.save(path)
