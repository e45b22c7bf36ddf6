"""Images with boxes: what a box set is, and its splits, opened by what the path is.

Two layouts are read: Pascal VOC's folder (`data/voc.py`) and COCO's JSON (`data/coco.py`).
Annotations are read once, when a split is opened; images one at a time.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from byol.data.coco import coco_files, read_coco
from byol.data.pixels import DecodeError
from byol.data.rawboxes import Annotated, ReadSplit
from byol.data.voc import read_voc, voc_splits
from byol.errors import UserError

_FORMATS = (
    "a folder with JPEGImages, Annotations and ImageSets/Main (Pascal VOC), a COCO JSON file, or a "
    "folder with such files under annotations/"
)
_TRAIN, _TEST = ("trainval", "train", ""), ("test", "val")
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


@dataclass(frozen=True)
class Boxes:
    """The boxes of one image, in pixels from its upper left corner."""

    corners: np.ndarray  # (N, 4) float32: left, top, right, bottom; the right edge is left + width
    classes: np.ndarray  # (N,) int64, from 0
    ignored: np.ndarray  # (N,) bool: difficult (VOC) or crowd (COCO), neither trained on nor scored


class BoxSource:
    """A Source of images whose "label" is the image's own number, the key to `boxes`."""

    labels: np.ndarray | None = None  # of whole images, of which there are none
    classes: list[str] | None = None

    def __init__(
        self, name: str, images: Sequence[Annotated], classes: list[str], log: "Log"
    ) -> None:
        self.name, self.names = name, classes  # of the set, and of the classes of its boxes
        self._paths = [image.path for image in images]
        self._sizes = [image.size or _upright_size(image.path) for image in images]
        self.boxes = [
            _clean(image, size, classes, log)
            for image, size in zip(images, self._sizes, strict=True)
        ]

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, i: int) -> tuple[bytes, int | None]:
        """The file and i. DecodeError where its size is not the annotated one."""
        encoded = Path(self._paths[i]).read_bytes()
        found = _upright_size(encoded)
        if found != self._sizes[i]:
            width, height = self._sizes[i]
            raise DecodeError(
                f"it has {found[0]} x {found[1]} pixels, its annotation says {width} x {height}"
            )
        return encoded, i

    def locate(self, i: int) -> str:
        return self._paths[i]


@dataclass(frozen=True)
class Log:
    """What was wrong with single boxes, one sentence each."""

    skipped: list[str]
    clipped: list[str]


@dataclass(frozen=True)
class BoxSplits:
    """What is trained on and what is scored; one sentence that says so; what was wrong in them."""

    train: BoxSource
    test: BoxSource
    choice: str
    log: Log


def open_boxes(
    data: str | Path, eval_data: str | Path | None = None, split: str | None = None
) -> BoxSplits:
    """Train and test split of a set with boxes.

    Trains on trainval, else train, and scores on test, else val (never on a part of what is
    trained on); `eval_data` is another set to score on; split="train:val" names both. The classes
    are those of the training split. Boxes that reach over the border are clipped, inverted and
    empty ones left out. Raises UserError for what is no such set, files that are missing, classes
    that training lacks, and where nothing is left to train on.
    """
    parts = _parts(Path(data))
    others = parts if eval_data is None else _parts(Path(eval_data))
    asked, _, queried = (split or "").partition(":")
    test = _choose(others, queried, (*_TEST, "") if eval_data else _TEST, eval_data or data)
    overlap = eval_data is None and test != "test" and "train" in parts
    train = _choose(parts, asked, ("train",) if overlap else _TRAIN, data)
    if eval_data is None and train == test:
        raise UserError(
            f"{data} would be scored on what it is trained on ({train or 'all of it'}): give "
            "--eval-data, or --split TRAIN:TEST"
        )
    read, scored = parts[train](), others[test]()
    classes = read.classes or sorted({name for image in read.images for name, _, _ in image.boxes})
    _same_classes(scored, classes)
    log = Log([*read.skipped, *scored.skipped], [])
    source = BoxSource(f"{data} {train}".strip(), read.images, classes, log)
    if not any((~boxes.ignored).any() for boxes in source.boxes):
        raise UserError(f"{source.name} has no box to train on; it lists {len(source)} images")
    queries = BoxSource(f"{eval_data or data} {test}".strip(), scored.images, classes, log)
    choice = f"trains on {len(source):,} images ({source.name}), scored on {len(queries):,} "
    return BoxSplits(source, queries, f"{choice}({queries.name}), {len(classes)} classes", log)


def _parts(path: Path) -> Mapping[str, Callable[[], ReadSplit]]:
    """Each split's name and how to read it."""
    if path.suffix.lower() == ".json" and path.is_file():
        return {"": partial(read_coco, path)}
    roots = [path, *sorted(path.glob("VOC*"))] if path.is_dir() else []
    for root in roots:
        if lists := voc_splits(root):
            return {name: partial(read_voc, root, file) for name, file in lists.items()}
    if files := coco_files(path):
        return {name: partial(read_coco, file) for name, file in files.items()}
    raise UserError(f"{path} is no set with boxes: give {_FORMATS}")


def _choose(
    parts: Mapping[str, object], asked: str, wanted: Sequence[str], where: str | Path
) -> str:
    for name in (asked,) if asked else wanted:
        if name in parts:
            return name
    raise UserError(
        f"{where} has no split {asked or ' or '.join(filter(None, wanted))}, but "
        f"{', '.join(filter(None, parts)) or 'no named one'}: name two with --split TRAIN:TEST, or "
        "give --eval-data"
    )


def _same_classes(scored: ReadSplit, classes: list[str]) -> None:
    for image in scored.images:
        for name, _, _ in image.boxes:
            if name not in classes:
                raise UserError(
                    f"{image.where} has a box of class {name!r}, which the training split lacks; "
                    f"its classes are {', '.join(classes)}"
                )


def _clean(image: Annotated, size: tuple[int, int], classes: list[str], log: Log) -> Boxes:
    """Boxes inside the image of `size` (width, height); what is changed goes to the log."""
    kept: list[tuple[int, tuple[float, ...], bool]] = []
    limits = (*size, *size)
    for name, corners, ignored in image.boxes:
        inside = tuple(min(max(c, 0), most) for c, most in zip(corners, limits, strict=True))
        sentence = f"{image.where}: {name} {tuple(round(c, 2) for c in corners)}"
        if not (corners[0] < corners[2] and corners[1] < corners[3]):
            log.skipped.append(f"{sentence} is inverted, empty or no number")
        elif not (inside[0] < inside[2] and inside[1] < inside[3]):
            log.skipped.append(f"{sentence} lies outside the image of {size[0]} x {size[1]}")
        else:
            if inside != corners:
                log.clipped.append(f"{sentence} reaches over {size[0]} x {size[1]} pixels")
            kept.append((classes.index(name), inside, ignored))
    return Boxes(
        np.array([corners for _, corners, _ in kept], np.float32).reshape(-1, 4),
        np.array([number for number, _, _ in kept], np.int64),
        np.array([ignored for _, _, ignored in kept], bool),
    )


def _upright_size(image: str | bytes) -> tuple[int, int]:
    """Width and height once EXIF is applied, from the header; (0, 0) where there is none."""
    try:
        with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as opened:
            width, height = opened.size
            turned = opened.getexif().get(0x0112) in _SIDEWAYS
    except Exception as error:  # on damaged bytes Pillow raises many kinds
        if isinstance(image, bytes):
            raise DecodeError("it is not an image in a known format") from error
        return 0, 0
    return (height, width) if turned else (width, height)
