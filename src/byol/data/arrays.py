"""Images in NumPy arrays: in memory, in .npy files (mapped, not read) and in .npz files."""

import io
import re
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from byol.data import remote
from byol.data.labels import SPLITS, as_labels
from byol.errors import UserError

_PAIRS = (("images", "labels"), ("x", "y"), ("data", "labels"), ("data", "target"), ("arr_0", ""))


class ArraySource:
    """An array (N, H, W) or (N, H, W, C) of any number type, and labels (N,) if there are any.

    With `file` (and the `key` inside an .npz), the pickle holds the path and not the pixels.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: Sequence[Any] | np.ndarray | None = None,
        classes: list[str] | None = None,
        name: str = "the array",
        file: str | None = None,
        key: str | None = None,
    ) -> None:
        if images.ndim not in (3, 4) or images.dtype.kind not in "buif":
            raise UserError(
                f"{name} has the shape {images.shape} and type {images.dtype}; images are "
                "expected as numbers of shape (N, H, W) or (N, H, W, C)"
            )
        if images.ndim == 4 and _is_channel_first(*images.shape[1:]):
            raise UserError(
                f"{name} has the shape {images.shape}, which looks channel-first; move the "
                "channels last: (N, H, W, C)"
            )
        if images.size == 0:
            raise UserError(f"{name} holds no images: its shape is {images.shape}")
        if labels is not None and len(labels) != len(images):
            raise UserError(f"{name} holds {len(images)} images but {len(labels)} labels")
        self.name, self._file, self._key = name, file, key
        self._images: np.ndarray | None = images
        self._n = len(images)
        self.labels, self.classes = as_labels(labels, classes)

    def __len__(self) -> int:
        return self._n

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | ({"_images": None} if self._file else {})

    def read(self, i: int) -> tuple[np.ndarray, int | None]:
        if self._images is None:
            assert self._file is not None
            self._images = load_array(self._file, self._key)
        image = np.asarray(self._images[i])
        image = image[..., None] if image.ndim == 2 else image  # (H, W, C)
        return image, None if self.labels is None else int(self.labels[i])

    @property
    def files(self) -> list[str]:
        """Where the pixels are read from, if not from memory."""
        return [self._file] if self._file else []

    def locate(self, i: int) -> str:
        return f"{self.name}[{i}]"


def load_array(file: str, key: str | None) -> np.ndarray:
    """A memory map of a local .npy file, the whole of a remote one, or the array `key` of .npz."""
    array: np.ndarray
    if key is None and not remote.is_url(file):
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    elif key is None:
        array = np.load(io.BytesIO(remote.read(file)), allow_pickle=False)
    else:
        with remote.open_file(file) as opened, np.load(opened, allow_pickle=False) as arrays:
            array = arrays[key]
    return array


def _is_channel_first(a: int, b: int, c: int) -> bool:
    """Whether the shape of an image is rather (C, H, W) than (H, W, C)."""
    return (c > 64 and a <= 64) or a < b == c


def array_parts(path: str) -> dict[str, Callable[[], ArraySource]]:
    """An .npy array, or the pairs of images and labels in an .npz file, split by their names."""
    try:
        if path.lower().endswith(".npy"):
            images = load_array(path, None)
            return {"": lambda: ArraySource(images, name=path, file=path)}
        with remote.open_file(path) as opened, np.load(opened, allow_pickle=False) as arrays:
            keys = list(arrays.files)
            labels = {key: arrays[key] for key in keys if _is_label_key(key)}
            named = next((arrays[k] for k in ("classes", "class_names") if k in keys), None)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error)
        if "pickle" in reason or "Python objects" in reason:  # NumPy's advice is to trust the file
            reason = "it is none, or of Python objects; save numbers with numpy.save or numpy.savez"
        raise UserError(f"{path} cannot be read as NumPy arrays: {reason}") from error
    classes = None if named is None else [str(name) for name in named]

    def part(key: str, label_key: str) -> Callable[[], ArraySource]:
        return lambda: ArraySource(
            load_array(path, key), labels.get(label_key), classes, f"{path}, {key}", path, key
        )

    parts: dict[str, Callable[[], ArraySource]] = {}
    for image_key, label_key in _PAIRS:
        for name, split in SPLITS.items():
            for pattern in (f"{{}}_{name}", f"{name}_{{}}"):  # x_train or train_images
                if pattern.format(image_key) in keys:
                    parts[split] = part(pattern.format(image_key), pattern.format(label_key))
    whole = next((pair for pair in _PAIRS if pair[0] in keys), None)
    if not parts and whole:
        parts[""] = part(*whole)
    if not parts:
        raise UserError(
            f"{path} holds the arrays {', '.join(keys)}; `images` and maybe `labels` are expected, "
            "or x_train, y_train, x_test and y_test"
        )
    return parts


def _is_label_key(key: str) -> bool:
    return bool(set(re.split("_", key)) & {"labels", "y", "target"})
