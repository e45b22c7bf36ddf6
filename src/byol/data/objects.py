"""Images that Python hands over: torchvision and other map-style sets, Hugging Face sets."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from byol.data.decode import from_pil
from byol.data.labels import LABEL_NAMES, as_labels
from byol.errors import UserError

_IMAGE_KEYS = ("image", "images", "img", "pixel_values", "x", "data", "jpg", "png")


class MapSource:
    """A torchvision or other map-style set: items are (image, label), a dict, or an image.

    Images may be Pillow images, arrays (H, W) or (H, W, C), tensors (C, H, W), or encoded bytes.
    Labels come from `targets` or `labels` where the set has them; otherwise the items are read
    once for them, when they are first asked for. Random transforms do not belong into the set:
    they would make its images a function of history.
    """

    def __init__(self, dataset: Any, name: str = "") -> None:
        self.name = name or type(dataset).__name__
        self._dataset = dataset
        self._n = len(dataset)
        self._numbering: tuple[np.ndarray | None, list[str] | None] | None = None
        if self._n == 0:
            raise UserError(f"{self.name} holds no images")

    def __len__(self) -> int:
        return self._n

    @property
    def labels(self) -> np.ndarray | None:
        return self._labelling()[0]

    @labels.setter
    def labels(self, labels: np.ndarray | None) -> None:
        self._numbering = (labels, self._labelling()[1])

    @property
    def classes(self) -> list[str] | None:
        return self._labelling()[1]

    @classes.setter
    def classes(self, classes: list[str] | None) -> None:
        self._numbering = (self._labelling()[0], classes)

    def read(self, i: int) -> tuple[bytes | np.ndarray, int | None]:
        image, _ = _parts(self._dataset[i])
        labels = self.labels
        return _pixels(image), None if labels is None else int(labels[i])

    def locate(self, i: int) -> str:
        return f"{self.name}[{i}]"

    def _labelling(self) -> tuple[np.ndarray | None, list[str] | None]:
        if self._numbering is None:
            values = _targets(self._dataset)
            if values is None and _parts(self._dataset[0])[1] is not None:
                values = [_parts(self._dataset[i])[1] for i in range(self._n)]
            whole = self._dataset
            while isinstance(whole, torch.utils.data.Subset):
                whole = whole.dataset
            names = getattr(whole, "classes", None)
            self._numbering = as_labels(values, list(names) if names else None)
        return self._numbering


def _targets(dataset: Any) -> list[Any] | None:
    """One label per image without reading images, looking through torch's Subset."""
    if isinstance(dataset, torch.utils.data.Subset):
        inner = _targets(dataset.dataset)
        return None if inner is None else [inner[i] for i in dataset.indices]
    for attribute in ("targets", "labels", "_labels"):
        values = getattr(dataset, attribute, None)
        if values is not None and hasattr(values, "__len__") and len(values) == len(dataset):
            return values.tolist() if hasattr(values, "tolist") else list(values)
    return None


def _parts(item: Any) -> tuple[Any, Any]:
    """Image and label (None if there is none) of one item of a map-style set."""
    if isinstance(item, dict):
        image = next((item[key] for key in _IMAGE_KEYS if key in item), None)
        label = next((item[key] for key in LABEL_NAMES if key in item), None)
        if image is None:
            raise UserError(
                f"items have the keys {', '.join(map(str, item))}; the image is expected under "
                f"one of {', '.join(_IMAGE_KEYS)}"
            )
    elif isinstance(item, (tuple, list)):
        image, label = item[0], item[1] if len(item) > 1 else None
    else:
        image, label = item, None
    if isinstance(label, (torch.Tensor, np.generic, np.ndarray)):
        label = label.item() if np.ndim(label) == 0 else None
    return image, label if isinstance(label, (int, str)) else None


def _pixels(image: Any) -> bytes | np.ndarray:
    """An image of any form as encoded bytes or (H, W, C)."""
    if isinstance(image, Image.Image):
        return from_pil(image)
    if isinstance(image, torch.Tensor):
        return np.asarray(image.permute(1, 2, 0) if image.ndim == 3 else image)
    if isinstance(image, (bytes, bytearray)):
        return bytes(image)
    if isinstance(image, dict) and image.get("bytes"):  # Hugging Face, undecoded
        return bytes(image["bytes"])
    if isinstance(image, np.ndarray):
        return image
    raise UserError(
        f"an image of type {type(image).__name__} was found; Pillow images, arrays (H, W, C), "
        "tensors (C, H, W) and encoded bytes are read"
    )


class HuggingFaceSource:
    """A Hugging Face `datasets.Dataset` with an Image column; files are kept encoded."""

    def __init__(self, dataset: Any, name: str = "") -> None:
        from datasets import Image as ImageFeature

        self.name = name or "the Hugging Face dataset"
        features = dataset.features
        kinds = {column: type(feature).__name__ for column, feature in features.items()}
        images = [column for column, kind in kinds.items() if kind == "Image"]
        if not images:
            raise UserError(
                f"{self.name} has the columns {', '.join(kinds)}; one of type Image is expected"
            )
        if len(dataset) == 0:
            raise UserError(f"{self.name} holds no images")
        labels = [column for column, kind in kinds.items() if kind == "ClassLabel"]
        labels += [column for column in LABEL_NAMES if column in kinds]
        self._column = images[0]
        bare = dataset.with_format(None)
        chosen = bare.select_columns([self._column])
        self._rows = chosen.cast_column(self._column, ImageFeature(decode=False))
        names = getattr(features[labels[0]], "names", None) if labels else None
        values = list(bare[labels[0]]) if labels else None
        self.labels, self.classes = as_labels(values, names)

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, i: int) -> tuple[bytes, int | None]:
        image = self._rows[i][self._column] or {}
        encoded = image.get("bytes")
        if encoded is None:
            if not image.get("path"):
                raise OSError("the row holds neither bytes nor a path")
            encoded = Path(image["path"]).read_bytes()
        return encoded, None if self.labels is None else int(self.labels[i])

    def locate(self, i: int) -> str:
        return f"{self.name}[{i}]"
