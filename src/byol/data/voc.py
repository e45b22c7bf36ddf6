"""Boxes in Pascal VOC's layout: JPEGImages, Annotations/NAME.xml, ImageSets/Main/SPLIT.txt.

Corners count from 1 and are inclusive (VOC2007 development kit), so a box of one pixel at the upper
left, (1, 1, 1, 1), is (0, 0, 1, 1) here.
"""

from pathlib import Path
from xml.etree import ElementTree

from byol.data.rawboxes import Annotated, Corners, ReadSplit
from byol.errors import UserError


class _NoDoctype(ElementTree.TreeBuilder):
    """Refuses a document type before its entities, which could expand without bound, are read."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("it declares a document type, which no annotation needs")


def voc_splits(root: Path) -> dict[str, Path]:
    """The split files of a VOC folder by name; {} where it is none.

    The lists of single classes (`dog_train.txt`) are left out: they name all images.
    """
    if not all((root / part).is_dir() for part in ("JPEGImages", "Annotations")):
        return {}
    lists = {file.stem: file for file in sorted(root.glob("ImageSets/Main/*.txt"))}
    ends = tuple(f"_{name}" for name in lists)
    return {name: file for name, file in lists.items() if not name.endswith(ends)}


def read_voc(root: Path, names: Path) -> ReadSplit:
    """The images that the split file `names` lists. An annotation that is no XML is left out with
    its image. Raises UserError where images or annotations are missing."""
    lines = names.read_text(encoding="utf-8-sig").split("\n")
    listed = [line.split()[0] for line in lines if line.strip()]
    if not listed:
        raise UserError(f"{names} is empty: one image name a line is expected")
    files = {file.stem: file for file in (root / "JPEGImages").iterdir()}
    notes = {file.stem: file for file in (root / "Annotations").iterdir() if file.suffix == ".xml"}
    for there, folder in ((files, "JPEGImages"), (notes, "Annotations")):
        missing = [name for name in listed if name not in there]
        if missing:
            raise UserError(
                f"{names} names {len(missing)} images that {root / folder} lacks, such as "
                f"{missing[0]}: complete the folder or take the names out"
            )
    images: list[Annotated] = []
    skipped: list[str] = []
    for name in listed:
        try:
            images.append(_annotated(files[name], notes[name], skipped))
        except (ElementTree.ParseError, ValueError) as error:
            skipped.append(f"{notes[name]} cannot be read ({error}); its image is left out")
    return ReadSplit(images, [], skipped)


def _annotated(image: Path, note: Path, skipped: list[str]) -> Annotated:
    parser = ElementTree.XMLParser(target=_NoDoctype())
    root = ElementTree.parse(note, parser).getroot()
    width, height = (int(float(root.findtext(f"size/{key}") or 0)) for key in ("width", "height"))
    boxes: list[tuple[str, Corners, bool]] = []
    for item in root.iter("object"):
        name = (item.findtext("name") or "").strip()
        try:
            left, top, right, bottom = (
                float(item.findtext(f"bndbox/{key}") or "none")
                for key in ("xmin", "ymin", "xmax", "ymax")
            )
        except ValueError:
            skipped.append(f"{note}: {name or 'an object'} has no four corners that are numbers")
            continue
        difficult = (item.findtext("difficult") or "").strip() == "1"
        boxes.append((name, (left - 1, top - 1, right, bottom), difficult))
    return Annotated(str(image), str(note), (width, height) if width and height else None, boxes)
