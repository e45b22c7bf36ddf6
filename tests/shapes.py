"""Drawn images of discs and squares with their boxes, in the layout of VOC2007."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

KINDS = ("disc", "square")


def xml(width: int, height: int, objects: list[tuple[str, int, int, int, int]]) -> str:
    """An annotation; corners as VOC counts them, from 1 and inclusive."""
    items = "".join(
        f"<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{x1}</xmin><ymin>{y1}"
        f"</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for name, x1, y1, x2, y2 in objects
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation>{size}{items}</annotation>"


def voc(
    root: Path, splits: dict[str, int], width: int = 128, height: int = 96, seed: int = 0
) -> Path:
    """`splits`: how many images each; two to four shapes an image, which do not overlap."""
    rng = np.random.default_rng(seed)
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / part).mkdir(parents=True)
    for split, count in splits.items():
        names = [f"{split}{i:03d}" for i in range(count)]
        (root / "ImageSets/Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            objects = _draw(root / "JPEGImages" / f"{name}.png", width, height, rng)
            (root / "Annotations" / f"{name}.xml").write_text(xml(width, height, objects))
    return root


def _draw(
    path: Path, width: int, height: int, rng: np.random.Generator
) -> list[tuple[str, int, int, int, int]]:
    image = Image.fromarray(rng.integers(90, 130, (height, width, 3), dtype=np.uint8))
    draw = ImageDraw.Draw(image)
    quarters = rng.permutation(4)[: rng.integers(2, 5)]  # one shape in a quarter of the image
    objects = []
    for quarter in quarters.tolist():
        side = int(rng.integers(height // 4, height // 2 - 4))
        left = quarter % 2 * width // 2 + int(rng.integers(0, width // 2 - side))
        top = quarter // 2 * height // 2 + int(rng.integers(0, height // 2 - side))
        kind = KINDS[int(rng.integers(2))]
        box = (left, top, left + side - 1, top + side - 1)  # inclusive, as Pillow draws
        colour = tuple(int(c) for c in rng.choice([20, 240], 3))
        (draw.ellipse if kind == "disc" else draw.rectangle)(box, fill=colour)
        objects.append((kind, box[0] + 1, box[1] + 1, box[2] + 1, box[3] + 1))
    image.save(path)
    return objects
