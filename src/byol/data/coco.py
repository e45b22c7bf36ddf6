"""Boxes in COCO's JSON: `images`, `annotations` with bbox [left, top, width, height], `categories`.

Crowd regions (`iscrowd`) are marked as ignored. Files are looked for as COCO itself distributes
them (annotations/instances_train2017.json beside train2017/), and as exporters do
(train/_annotations.coco.json beside the images).
"""

import json
import re
from pathlib import Path
from typing import Any

from byol.data.labels import SPLITS
from byol.data.rawboxes import Annotated, Corners, ReadSplit
from byol.errors import UserError

_SPLIT = re.compile(r"(?:^|[-_.])(trainval|train|validation|valid|val|test)(?=[-_.\d]|$)")


def coco_files(folder: Path) -> dict[str, Path]:
    """The JSON files of a folder by split; {} where there are none."""
    found = [*folder.glob("annotations/*.json"), *folder.glob("*/_annotations.coco.json")]
    found += folder.glob("*.json")
    boxes = [file for file in found if file.name.startswith("instances")] or found
    named = {}
    for file in sorted(boxes):
        match = _SPLIT.search(file.parent.name if file.name.startswith("_") else file.stem)
        if match:
            named[SPLITS.get(match[1], match[1])] = file
    return named


def read_coco(file: Path) -> ReadSplit:
    """The images of a JSON file. An annotation that names no image or class is left out.

    Raises UserError for what is no such file, and where images are missing.
    """
    content = _content(file)
    try:
        classes = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
        sizes = {e["id"]: _size(e.get("width"), e.get("height")) for e in content["images"]}
        names = {entry["id"]: str(entry["file_name"]) for entry in content["images"]}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{file} has an unusable image or category ({error!r}): an image has an id and a "
            "file_name, a category an id and a name"
        ) from error
    folder = _image_folder(file, list(names.values()))
    boxes: dict[Any, list[tuple[str, Corners, bool]]] = {key: [] for key in names}
    skipped = []
    for place, entry in enumerate(content["annotations"]):
        try:
            left, top, width, height = (float(number) for number in entry["bbox"])
            corners = (left, top, left + width, top + height)
            crowd = bool(entry.get("iscrowd", 0))
            boxes[entry["image_id"]].append((classes[entry["category_id"]], corners, crowd))
        except (KeyError, TypeError, ValueError) as error:
            skipped.append(f"{file}: annotation {place} is unusable ({error!r})")
    images = [
        Annotated(str(folder / name), f"{file}, {name}", sizes[key], boxes[key])
        for key, name in names.items()
    ]
    return ReadSplit(images, list(classes.values()), skipped)


def _content(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise UserError(f"{file} is no JSON ({error})") from error
    parts = ("images", "annotations", "categories")
    lists = isinstance(content, dict) and all(isinstance(content.get(p), list) for p in parts)
    if not lists or not content["images"]:
        raise UserError(f"{file} is no COCO file: it needs the lists {', '.join(parts)}")
    return dict(content)


def _size(width: Any, height: Any) -> tuple[int, int] | None:
    return (int(width), int(height)) if width and height else None


def _image_folder(file: Path, names: list[str]) -> Path:
    """Where the images of a JSON file lie: beside it, or as COCO has them."""
    stem = file.stem.removeprefix("instances_")
    above = file.parent.parent
    places = [file.parent, file.parent / "images", above / stem, above / "images" / stem]
    places += [above / "images", above]
    folder = next((place for place in places if (place / names[0]).is_file()), None)
    if folder is None:
        looked = ", ".join(str(place) for place in places)
        raise UserError(f"{file} names {names[0]}, which is in none of {looked}")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{file} names {len(missing)} images that {folder} lacks, such as {missing[0]}: "
            "complete the folder or take them out"
        )
    return folder
