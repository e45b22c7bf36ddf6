"""Pairs of an image and a map of it (class indices, or depth in metres), by what the path is.

Folders: the layout of VOC2012 (JPEGImages, SegmentationClass, ImageSets/Segmentation/SPLIT.txt);
two folders of files of equal names, with lists SPLIT.txt beside them, sub-folders SPLIT in each or
around both, or unsplit. Files: the labelled .mat of NYU Depth v2 (see data/nyu.py).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from byol.data.decode import read_pixels
from byol.data.labels import SPLITS
from byol.data.nyu import Frames, nyu_splits
from byol.data.pixels import DecodeError
from byol.data.shards import IMAGE_SUFFIXES
from byol.errors import UserError

IGNORED = 255  # the class index that says "do not care"
IMAGES = ("JPEGImages", "images", "image", "rgb")
MAPS = {
    "classes": ("SegmentationClassAug", "SegmentationClass", "masks", "labels", "annotations"),
    "depth": ("depth", "depths"),
}
_LISTS = {**SPLITS, "trainaug": "trainaug", "train_aug": "trainaug", "trainval": "trainval"}

Kind = Literal["classes", "depth"]
Parts = Mapping[str, "Pairs"]


@dataclass(frozen=True)
class Pairs:
    """Images and their maps, read when they are asked for; cheap to pickle."""

    name: str  # for messages
    places: tuple[Any, ...]  # (image file, map file), or the number of a frame
    reader: Callable[[Any], tuple[bytes | np.ndarray, np.ndarray]]
    classes: tuple[str, ...] | None = None  # names, where a classes.txt gives them

    def __len__(self) -> int:
        return len(self.places)

    def read(self, i: int) -> tuple[bytes | np.ndarray, np.ndarray]:
        """Image i as an encoded file or pixels (H, W, C), and its map (H, W): uint8 class indices
        with 255 for none, or float32 metres with 0 for none. DecodeError or OSError."""
        return self.reader(self.places[i])

    def locate(self, i: int) -> str:
        place = self.places[i]
        return str(place[0]) if isinstance(place, tuple) else f"{self.name}, frame {place}"

    def take(self, at: Sequence[int], name: str | None = None) -> "Pairs":
        """Some of the pairs."""
        chosen = tuple(self.places[i] for i in at)
        return replace(self, name=name or self.name, places=chosen)


def open_pairs(data: Any, kind: Kind, depth_scale: float = 1000) -> Parts:
    """The pairs of each split of `data`, under the one key "" where it is not split.

    depth_scale: units of a depth file in a metre. Raises UserError for what is no such data.
    """
    path = Path(str(data)).expanduser()
    if not path.exists():
        raise UserError(f"{path} does not exist; data is {_expected(kind)}")
    labelled = path / "nyu_depth_v2_labeled.mat"
    if kind == "depth" and (path.suffix == ".mat" or labelled.is_file()):
        file = path if path.suffix == ".mat" else labelled
        splits = nyu_splits(file)
        return {key: Pairs(name, at, Frames(file)) for key, (name, at) in splits.items()}
    if not path.is_dir():
        raise UserError(f"{path} is no folder; data is {_expected(kind)}")
    names = _class_names(path)
    of_map = partial(read_mask, classes=len(names) if names else IGNORED)
    if kind == "depth":
        of_map = partial(read_depth, scale=depth_scale)
    parts = {
        key: Pairs(name, places, partial(_read, of_map), names)
        for key, (name, places) in _splits(path, kind).items()
    }
    if not any(parts.values()):
        raise UserError(f"{path} holds no image in its folder of images; data is {_expected(kind)}")
    return parts


def choose(
    parts: Parts, train: str | None, test: str | None, seed: int
) -> tuple[Pairs, Pairs, str]:
    """What is trained on, what is measured on, and one sentence that says so.

    By default train (trainaug where there is one), and test, else val. Where there is no other
    split, a fifth drawn from `seed` is kept for measuring.
    """
    found = ", ".join(sorted(parts)) if "" not in parts else "no splits"
    for name in (train, test):
        if name is not None and _LISTS.get(name, name) not in parts:
            raise UserError(f"the data has {found}; {name!r} was asked for")
    wanted = _LISTS.get(train, train) if train else None
    first = wanted or next((name for name in ("trainaug", "train", "") if name in parts), None)
    if first is None:
        raise UserError(f"the data has the splits {found} and no train; name one (train_split)")
    queried = _LISTS.get(test, test) if test else None
    second = queried or next((n for n in ("test", "val") if n in parts and n != first), None)
    if second is not None:
        kept, held = parts[first], parts[second]
        return kept, held, f"training on {_say(kept)}, measuring on {_say(held)}"
    kept, held = hold_out(parts[first], seed)
    return kept, held, f"training on {len(kept)} pairs of {kept.name}, measuring on the other fifth"


def hold_out(pairs: Pairs, seed: int) -> tuple[Pairs, Pairs]:
    """Four fifths and the last fifth of an order drawn from `seed`. UserError below 2 pairs."""
    if len(pairs) < 2:
        raise UserError(f"{pairs.name} holds {len(pairs)} pair, of which none can be held out")
    order = np.random.default_rng(seed).permutation(len(pairs))
    fifth = max(1, len(pairs) // 5)
    kept, held = np.sort(order[fifth:]).tolist(), np.sort(order[:fifth]).tolist()
    return pairs.take(kept), pairs.take(held)


def read_mask(path: Path, classes: int) -> np.ndarray:
    """Class indices (H, W) uint8 of a palette or grey image, below `classes` or 255; the colours of
    a palette do not count."""
    from PIL import Image

    with Image.open(path) as image:
        if image.mode not in ("P", "L", "1", "I", "I;16"):
            raise DecodeError(
                f"{path.name} is a mask of mode {image.mode}; class indices are expected, as a "
                "palette or grey image"
            )
        mask = np.asarray(image).astype(np.int64)
    highest = mask[mask != IGNORED].max(initial=0)
    if highest >= classes:
        raise DecodeError(
            f"{path.name} holds class {highest} where there are {classes} classes, counted from 0 "
            f"(classes.txt names them), and {IGNORED} for none"
        )
    return mask.astype(np.uint8)


def read_depth(path: Path, scale: float) -> np.ndarray:
    """Metres (H, W) float32 of an image of one channel (16-bit PNG), 0 for no measurement."""
    pixels = read_pixels(path.read_bytes()).array  # (H, W, C)
    if pixels.shape[2] != 1:
        raise DecodeError(f"{path.name} has {pixels.shape[2]} channels; a depth image has one")
    metres: np.ndarray = pixels[..., 0].astype(np.float32) / np.float32(scale)
    return metres


def _read(of_map: Callable[[Path], np.ndarray], pair: tuple[Path, Path]) -> Any:
    """The bytes of the image and the map of a pair of files."""
    for path in pair:
        if not path.is_file():
            raise DecodeError(f"{path} does not exist")
    try:
        return pair[0].read_bytes(), of_map(pair[1])
    except DecodeError:
        raise
    except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises on damaged files
        raise DecodeError(f"{pair[1].name} cannot be decoded: {error}") from error


def _splits(root: Path, kind: Kind) -> dict[str, tuple[str, tuple[tuple[Path, Path], ...]]]:
    """Split to (name, pairs of files)."""
    images = next((root / name for name in IMAGES if (root / name).is_dir()), None)
    maps = next((root / name for name in MAPS[kind] if (root / name).is_dir()), None)
    if images is None or maps is None:
        inner = {_LISTS[sub.name]: sub for sub in root.iterdir() if sub.name in _LISTS}
        found = {key: _splits(sub, kind).get("") for key, sub in inner.items() if sub.is_dir()}
        if found and all(found.values()):
            return {key: part for key, part in found.items() if part}
        raise UserError(f"{root} has no two folders of images and maps; data is {_expected(kind)}")
    voc = root / "ImageSets" / "Segmentation"
    lists = sorted((voc if voc.is_dir() else root).glob("*.txt"))
    if lists := [file for file in lists if file.stem in _LISTS]:
        parts = {_LISTS[file.stem]: _listed(file, images, maps) for file in lists}
        # VOC2012 publishes a list of test images without their masks.
        return {key: part for key, part in parts.items() if any(b.is_file() for _, b in part[1])}
    subs = {_LISTS[sub.name]: sub for sub in images.iterdir() if sub.name in _LISTS}
    if subs:
        return {
            key: (str(sub), _pair_up(sorted(_files(sub)), sub, maps / sub.name))
            for key, sub in subs.items()
        }
    return {"": (str(root), _pair_up(sorted(_files(images)), images, maps))}


def _listed(file: Path, images: Path, maps: Path) -> tuple[str, tuple[tuple[Path, Path], ...]]:
    """The pairs that a list names, one a line; of a line of two paths the first one counts."""
    words = [line.split()[0] for line in file.read_text().splitlines() if line.strip()]
    names = [Path(word).name for word in words]
    stems = [n[: -len(Path(n).suffix)] if _is_image(n) else n for n in names]
    return str(file), _pair_up(stems, images, maps)


def _pair_up(stems: list[str], images: Path, maps: Path) -> tuple[tuple[Path, Path], ...]:
    """The files of these names; a missing one keeps a place, so that it can be reported."""
    of_image, of_map = _files(images), _files(maps)
    return tuple(
        (of_image.get(stem, images / f"{stem}.jpg"), of_map.get(stem, maps / f"{stem}.png"))
        for stem in stems
    )


def _files(folder: Path) -> dict[str, Path]:
    """Image files by their name without its ending."""
    if not folder.is_dir():
        return {}
    return {path.stem: path for path in folder.iterdir() if _is_image(path.name)}


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def _class_names(root: Path) -> tuple[str, ...] | None:
    file = root / "classes.txt"
    return tuple(file.read_text().splitlines()) if file.is_file() else None


def _say(pairs: Pairs) -> str:
    return f"{len(pairs):,} pairs ({pairs.name})"


def _expected(kind: Kind) -> str:
    folders = f"a folder with {' or '.join(IMAGES)} and {' or '.join(MAPS[kind])}"
    if kind == "depth":
        return f"{folders}, or the labelled .mat of NYU Depth v2"
    return f"{folders} (and lists ImageSets/Segmentation/SPLIT.txt or SPLIT.txt)"
