"""The files of the paper's transfer sets as their authors distribute them (paper appendix D.1).

One function a set: (root, download) to its training images, the authors' own validation images
(None where they have none) and its test images. Files that are missing or not as expected raise
what torchvision and Python raise; data/benchmarks.py makes a sentence of it.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from byol.data.arrays import ArraySource
from byol.data.folders import FileSource
from byol.data.source import Source, Subset, open_source, open_splits

Parts = tuple[Source, Source | None, Source]


class TaggedFiles(FileSource):
    """Image files with any number of classes each: targets (N, K) of 1 (is there), 0 (is not)
    and -1 (not to be counted)."""

    def __init__(self, paths: list[str], targets: np.ndarray, tags: list[str], name: str) -> None:
        super().__init__(paths, None, name)
        self.targets, self.tags = targets, tags


def imagenet(root: Path, download: bool) -> Parts:
    """imagenet/train/CLASS and imagenet/val/CLASS; the validation images are the test set."""
    splits = open_splits(root / "imagenet", split="train:val")
    assert splits.test is not None
    return splits.train, None, splits.test


def food101(root: Path, download: bool) -> Parts:
    """food-101/meta/{train,test}.json and food-101/images."""
    from torchvision.datasets import Food101

    train, test = (_files(Food101(root, split=s, download=download)) for s in ("train", "test"))
    return train, None, test


def cifar10(root: Path, download: bool) -> Parts:
    """cifar-10-batches-py, the "python version"."""
    from torchvision.datasets import CIFAR10

    return _cifar(CIFAR10, root, download)


def cifar100(root: Path, download: bool) -> Parts:
    """cifar-100-python, the "python version"."""
    from torchvision.datasets import CIFAR100

    return _cifar(CIFAR100, root, download)


def birdsnap(root: Path, download: bool) -> Parts:
    """birdsnap/{images,test_images}.txt and the images that get_birdsnap.py could still fetch."""
    folder = root / "birdsnap"
    with open(folder / "images.txt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    tested = set((folder / "test_images.txt").read_text("utf-8").split("\n")[1:])
    images = folder / "images"
    here = [row for row in rows if (images / row["path"]).is_file()]

    def part(test: bool) -> FileSource:
        chosen = [row for row in here if (row["path"] in tested) == test]
        paths = [str(images / row["path"]) for row in chosen]
        labels = [int(row["species_id"]) - 1 for row in chosen]
        return _some(paths, labels, f"{folder}, {'test' if test else 'train'}")

    return part(False), None, part(True)


def sun397(root: Path, download: bool) -> Parts:
    """SUN397/a/abbey/*.jpg and the first of the ten partitions, SUN397/Partitions."""
    folder = root / "SUN397"
    if download and not folder.is_dir():
        from torchvision.datasets import SUN397

        SUN397(root, download=True)

    def part(name: str) -> FileSource:
        lines = (folder / "Partitions" / name).read_text("utf-8").split()
        paths = [str(folder / line.lstrip("/")) for line in lines]
        return _some(paths, [line.rsplit("/", 1)[0] for line in lines], f"{folder}, {name}")

    return part("Training_01.txt"), None, part("Testing_01.txt")


def cars(root: Path, download: bool) -> Parts:
    """stanford_cars/{devkit,cars_train,cars_test,cars_test_annos_withlabels.mat}."""
    from torchvision.datasets import StanfordCars

    # The authors' server is gone, so that torchvision cannot fetch it either.
    train, test = (_files(StanfordCars(root, split=s)) for s in ("train", "test"))
    return train, None, test


def aircraft(root: Path, download: bool) -> Parts:
    """fgvc-aircraft-2013b/data; the 100 variants."""
    from torchvision.datasets import FGVCAircraft

    names = ("train", "val", "test")
    train, valid, test = (_files(FGVCAircraft(root, split=s, download=download)) for s in names)
    return train, valid, test


def voc2007(root: Path, download: bool) -> Parts:
    """VOCdevkit/VOC2007: the image lists of each class; 1 is there, -1 is not, 0 is difficult."""
    folder = root / "VOCdevkit" / "VOC2007"
    lists = folder / "ImageSets" / "Main"
    if download:
        from torchvision.datasets import VOCDetection

        for name, image_set in (("train", "train"), ("test", "test")):
            if not (lists / f"{name}.txt").is_file():
                VOCDetection(root, "2007", image_set, download=True)
    tags = sorted(file.stem.removesuffix("_train") for file in lists.glob("*_train.txt"))

    def part(split: str) -> TaggedFiles:
        names = (lists / f"{split}.txt").read_text("utf-8").split()
        columns = []
        for tag in tags:
            words = (lists / f"{tag}_{split}.txt").read_text("utf-8").split()
            stated = dict(zip(words[::2], map(int, words[1::2]), strict=True))
            columns.append([{1: 1, -1: 0, 0: -1}[stated[name]] for name in names])
        paths = [str(folder / "JPEGImages" / f"{name}.jpg") for name in names]
        return TaggedFiles(paths, np.array(columns, np.int64).T, tags, f"{folder}, {split}")

    return part("train"), part("val"), part("test")


def dtd(root: Path, download: bool) -> Parts:
    """dtd/dtd/{images,labels}; the first of the ten splits."""
    from torchvision.datasets import DTD

    train, valid, test = (
        _files(DTD(root, split=s, partition=1, download=download)) for s in ("train", "val", "test")
    )
    return train, valid, test


def pets(root: Path, download: bool) -> Parts:
    """oxford-iiit-pet/{images,annotations}."""
    from torchvision.datasets import OxfordIIITPet

    names = ("trainval", "test")
    train, test = (_files(OxfordIIITPet(root, split=s, download=download)) for s in names)
    return train, None, test


def caltech101(root: Path, download: bool) -> Parts:
    """caltech101/101_ObjectCategories/CLASS, the background among them: 30 images of each class
    for training, the rest for the test, by one seeded draw (torchvision leaves out a class)."""
    folder = root / "caltech101" / "101_ObjectCategories"
    if download and not folder.is_dir():
        from torchvision.datasets import Caltech101

        Caltech101(root, download=True)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    whole = open_source(folder)
    if whole.labels is None:
        raise FileNotFoundError(f"{folder} has no folders of classes")
    thirty = draw(whole.labels, 30, seed=0)
    rest = np.setdiff1d(np.arange(len(whole)), thirty)
    return Subset(whole, thirty), None, Subset(whole, rest)


def flowers(root: Path, download: bool) -> Parts:
    """flowers-102/{jpg,imagelabels.mat,setid.mat}."""
    from torchvision.datasets import Flowers102

    names = ("train", "val", "test")
    train, valid, test = (_files(Flowers102(root, split=s, download=download)) for s in names)
    return train, valid, test


def places365(root: Path, download: bool) -> Parts:
    """places365/places365_{train_standard,val}.txt with data_256_standard and val_256."""
    from torchvision.datasets import Places365

    folder = root / "places365"
    train, test = (
        _files(Places365(folder, split=s, small=True, download=download))
        for s in ("train-standard", "val")
    )
    return train, None, test


def draw(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Places of `count` images of each class (all but one of a class that has no more), sorted."""
    rng = np.random.default_rng(seed)
    members = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    return np.sort(np.concatenate([m[: min(count, len(m) - 1)] for m in members]))


def _cifar(kind: Any, root: Path, download: bool) -> Parts:
    def part(train: bool) -> ArraySource:
        held = kind(root, train=train, download=download)
        name = f"{kind.__name__}, {'train' if train else 'test'}"
        return ArraySource(held.data, held.targets, held.classes, name)

    return part(True), None, part(False)


def _files(dataset: Any) -> FileSource:
    """The files and labels that one of torchvision's sets has read from its lists."""
    pairs = getattr(dataset, "_samples", None) or getattr(dataset, "imgs", None)
    if pairs is None:
        paths = getattr(dataset, "_image_files", None) or dataset._images
        pairs = list(zip(paths, dataset._labels, strict=True))
    kind = type(dataset).__name__
    return _some([str(path) for path, _ in pairs], [int(k) for _, k in pairs], kind)


def _some(paths: list[str], labels: Sequence[int | str], name: str) -> FileSource:
    if not paths:
        raise FileNotFoundError(f"{name} lists no images")
    return FileSource(paths, list(labels), name)
