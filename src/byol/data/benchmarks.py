"""The sets that the paper transfers to: sizes, splits, metrics and figures (appendices D.1, F)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from byol.data import layouts
from byol.data.layouts import Parts, TaggedFiles
from byol.data.source import Source, Subset
from byol.errors import UserError


@dataclass(frozen=True)
class Benchmark:
    """One set as the paper uses it (table 10), and what its ResNet-50 reached (tables 3 and 13)."""

    title: str
    read: Callable[[Path, bool], Parts]
    classes: int
    train: int  # images; the validation images are not among them
    valid: int
    test: int
    metric: str  # "top1", "mean_per_class" or "map11"
    files: str  # expected in the root folder
    page: str  # of the authors
    linear: tuple[float, float | None]  # BYOL, supervised on ImageNet; in %
    finetuned: tuple[float, float, float] | None  # the same, and from random weights
    held_per_class: int | None = None  # validation images drawn of each class (None: of all)


@dataclass(frozen=True)
class Task:
    """Images to learn from, to choose on and to measure on, and by what metric."""

    train: Source
    valid: Source
    test: Source
    classes: int
    metric: str


BENCHMARKS: dict[str, Benchmark] = {
    "food101": Benchmark(
        "Food-101", layouts.food101, 101, 68_175, 7_575, 25_250, "top1",
        "food-101/images and food-101/meta", "data.vision.ee.ethz.ch/cvl/datasets_extra/food-101",
        (75.3, 72.3), (88.5, 88.3, 86.9),
    ),
    "cifar10": Benchmark(
        "CIFAR-10", layouts.cifar10, 10, 45_000, 5_000, 10_000, "top1",
        "cifar-10-batches-py (the python version)", "www.cs.toronto.edu/~kriz/cifar.html",
        (91.3, 93.6), (97.8, 97.5, 95.9),
    ),
    "cifar100": Benchmark(
        "CIFAR-100", layouts.cifar100, 100, 44_933, 5_067, 10_000, "top1",
        "cifar-100-python (the python version)", "www.cs.toronto.edu/~kriz/cifar.html",
        (78.4, 78.3), (86.1, 86.4, 80.2),
    ),
    "birdsnap": Benchmark(
        "Birdsnap", layouts.birdsnap, 500, 42_405, 4_981, 2_443, "top1",
        "birdsnap/images.txt, birdsnap/test_images.txt and birdsnap/images (get_birdsnap.py)",
        "thomasberg.org", (57.2, 53.7), (76.3, 75.8, 76.1),
    ),
    "sun397": Benchmark(
        "SUN397", layouts.sun397, 397, 15_880, 3_970, 19_850, "top1",
        "SUN397/a, SUN397/b, ... and SUN397/Partitions/{Training,Testing}_01.txt",
        "vision.princeton.edu/projects/2010/SUN", (62.2, 61.9), (63.7, 64.3, 53.6), 10,
    ),
    "cars": Benchmark(
        "Stanford Cars", layouts.cars, 196, 6_494, 1_650, 8_041, "top1",
        "stanford_cars/devkit, stanford_cars/cars_train, stanford_cars/cars_test and "
        "stanford_cars/cars_test_annos_withlabels.mat",
        "ai.stanford.edu/~jkrause/cars/car_dataset.html", (67.8, 66.7), (91.6, 92.1, 91.4),
    ),
    "aircraft": Benchmark(
        "FGVC Aircraft", layouts.aircraft, 100, 3_334, 3_333, 3_333, "mean_per_class",
        "fgvc-aircraft-2013b/data", "www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft",
        (60.6, 61.0), (88.1, 86.0, 85.9),
    ),
    "voc2007": Benchmark(
        "PASCAL VOC2007", layouts.voc2007, 20, 2_501, 2_510, 4_952, "map11",
        "VOCdevkit/VOC2007/JPEGImages and VOCdevkit/VOC2007/ImageSets/Main, training and test",
        "host.robots.ox.ac.uk/pascal/VOC/voc2007", (82.5, 82.8), (85.4, 85.0, 67.3),
    ),
    "dtd": Benchmark(
        "DTD", layouts.dtd, 47, 1_880, 1_880, 1_880, "top1",
        "dtd/dtd/images and dtd/dtd/labels", "www.robots.ox.ac.uk/~vgg/data/dtd",
        (75.5, 74.9), (76.2, 74.6, 64.8),
    ),
    "pets": Benchmark(
        "Oxford-IIIT Pets", layouts.pets, 37, 2_940, 740, 3_669, "mean_per_class",
        "oxford-iiit-pet/images and oxford-iiit-pet/annotations",
        "www.robots.ox.ac.uk/~vgg/data/pets", (90.4, 91.5), (91.7, 92.1, 81.5), 20,
    ),
    "caltech101": Benchmark(
        "Caltech-101", layouts.caltech101, 102, 2_550, 510, 6_084, "mean_per_class",
        "caltech101/101_ObjectCategories, with BACKGROUND_Google", "data.caltech.edu",
        (94.2, 94.5), (93.8, 93.3, 72.6), 5,
    ),
    "flowers": Benchmark(
        "Oxford 102 Flowers", layouts.flowers, 102, 1_020, 1_020, 6_149, "mean_per_class",
        "flowers-102/jpg, flowers-102/imagelabels.mat and flowers-102/setid.mat",
        "www.robots.ox.ac.uk/~vgg/data/flowers/102", (96.1, 94.7), (97.0, 97.6, 92.0),
    ),
    "imagenet": Benchmark(
        "ImageNet", layouts.imagenet, 1000, 1_271_158, 10_009, 50_000, "top1",
        "imagenet/train and imagenet/val, a folder each class", "image-net.org",
        (74.3, 76.4), None,
    ),
    "places365": Benchmark(  # the paper has no validation part: as many images as the test has
        "Places365", layouts.places365, 365, 1_766_960, 36_500, 36_500, "top1",
        "places365/places365_train_standard.txt, places365/places365_val.txt, "
        "places365/categories_places365.txt, places365/data_256_standard and places365/val_256",
        "places2.csail.mit.edu", (51.0, None), None,
    ),
}  # fmt: skip


def open_benchmark(
    name: str, root: Path, download: bool, seed: int, say: Callable[[str], None]
) -> Task:
    """A set of BENCHMARKS below `root`; `say` hears where its sizes are not the paper's.

    Raises UserError where files are missing or not as expected, or there is no such set.
    """
    if name not in BENCHMARKS:
        raise UserError(f"there is no set {name!r}; there are {', '.join(BENCHMARKS)}")
    known = BENCHMARKS[name]
    try:
        train, valid, test = known.read(root, download)
    except (UserError, OSError, RuntimeError, ValueError, LookupError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{name}: {known.title} cannot be read from {root} ({reason}); expected there: "
            f"{known.files}; published at {known.page}"
        ) from error
    if valid is None:
        held = _held(train, known, seed)
        valid = Subset(train, held)
        train = Subset(train, np.setdiff1d(np.arange(len(train)), held))
    classes = _classes(train)
    for part, found, expected in (
        ("classes", classes, known.classes),
        ("training images", len(train), known.train),
        ("validation images", len(valid), known.valid),
        ("test images", len(test), known.test),
    ):
        if found != expected:
            say(f"{known.title} has {found:,} {part} here and {expected:,} in the paper")
    return Task(train, valid, test, classes, known.metric)


def _held(train: Source, known: Benchmark, seed: int) -> np.ndarray:
    """Validation images drawn from the training images, the paper's share of them."""
    assert train.labels is not None
    if known.held_per_class:
        return layouts.draw(train.labels, known.held_per_class, seed)
    count = round(len(train) * known.valid / (known.train + known.valid))
    order = np.random.default_rng(seed).permutation(len(train))
    return np.sort(order[: max(1, count)])


def _classes(train: Source) -> int:
    if isinstance(train, TaggedFiles):
        return len(train.tags)
    assert train.labels is not None
    return int(train.labels.max()) + 1
