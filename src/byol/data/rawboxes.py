"""What the readers of box annotations hand over, before it is checked against the images."""

from dataclasses import dataclass

Corners = tuple[float, float, float, float]  # left, top, right, bottom, in pixels from 0


@dataclass(frozen=True)
class Annotated:
    """An image and what its annotation says."""

    path: str
    where: str  # the annotation, for messages
    size: tuple[int, int] | None  # width, height; None where the annotation does not say
    boxes: list[tuple[str, Corners, bool]]  # class, corners, ignored


@dataclass(frozen=True)
class ReadSplit:
    """The images of one split."""

    images: list[Annotated]
    classes: list[str]  # where the format lists them, else empty
    skipped: list[str]  # one sentence for each annotation that cannot be read
