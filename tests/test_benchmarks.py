"""Readers of the paper's sets, on tiny folders in the layout of each."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from byol.data.benchmarks import BENCHMARKS, Task, open_benchmark
from byol.data.layouts import TaggedFiles
from byol.data.source import Source
from byol.errors import UserError

LINEAR = "75.3 91.3 78.4 57.2 62.2 67.8 60.6 82.5 75.5 90.4 94.2 96.1"
SUPERVISED = "72.3 93.6 78.3 53.7 61.9 66.7 61.0 82.8 74.9 91.5 94.5 94.7"
TOTALS = {  # original training images (with the authors' validation images), test images
    "food101": (75_750, 25_250), "cifar10": (50_000, 10_000), "cifar100": (50_000, 10_000),
    "birdsnap": (47_386, 2_443), "sun397": (19_850, 19_850), "cars": (8_144, 8_041),
    "aircraft": (6_667, 3_333), "voc2007": (5_011, 4_952), "dtd": (3_760, 1_880),
    "pets": (3_680, 3_669), "caltech101": (3_060, 6_084), "flowers": (2_040, 6_149),
    "imagenet": (1_281_167, 50_000), "places365": (1_803_460, 36_500),
}  # fmt: skip


def test_the_papers_tables() -> None:
    twelve = list(BENCHMARKS.values())[:12]
    assert [known.linear[0] for known in twelve] == [float(x) for x in LINEAR.split()]
    assert [known.linear[1] for known in twelve] == [float(x) for x in SUPERVISED.split()]
    for name, known in BENCHMARKS.items():
        assert (known.train + known.valid, known.test) == TOTALS[name]
        per_class = known.held_per_class
        assert per_class is None or per_class * known.classes == known.valid
    metrics = {name: known.metric for name, known in BENCHMARKS.items() if known.metric != "top1"}
    mean = dict.fromkeys(("aircraft", "pets", "caltech101", "flowers"), "mean_per_class")
    assert metrics == mean | {"voc2007": "map11"}


def picture(path: Path, label: int) -> None:
    """An image that shows its label."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (40 * label, 0, 0)).save(path, quality=100)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def imagenet(root: Path) -> None:
    for split, n in (("train", 20), ("val", 3)):
        for k in range(2):
            for i in range(n):
                picture(root / f"imagenet/{split}/n0{k}/{i}.JPEG", k)
    picture(root / "imagenet/test/unknown.JPEG", 0)


def food101(root: Path) -> None:
    for split, n in (("train", 20), ("test", 3)):
        names = {f"food{k}": [f"food{k}/{split}{i}" for i in range(n)] for k in range(2)}
        write(root / f"food-101/meta/{split}.json", json.dumps(names))
        for k in range(2):
            for name in names[f"food{k}"]:
                picture(root / f"food-101/images/{name}.jpg", k)


def birdsnap(root: Path) -> None:
    lines = ["url\tmd5\tpath\tspecies_id\tbb_x1"]
    for k in range(2):
        for i in range(23):
            lines.append(f'http://a/"b\tc\tBird_{k}/{i}.jpg\t{k + 1}\t3')
            if i != 5:  # one that could not be fetched
                picture(root / f"birdsnap/images/Bird_{k}/{i}.jpg", k)
    write(root / "birdsnap/images.txt", "\n".join(lines))
    tested = [f"Bird_{k}/{i}.jpg" for k in range(2) for i in range(20, 23)]
    write(root / "birdsnap/test_images.txt", "\n".join(["path", *tested]))


def sun397(root: Path) -> None:
    for split, n in (("Training", 20), ("Testing", 3)):
        names = [f"/a/abbey{k}/in/sun_{split}{i}.jpg" for k in range(2) for i in range(n)]
        write(root / f"SUN397/Partitions/{split}_01.txt", "\n".join(names))
        for name in names:
            picture(root / f"SUN397{name}", int(name[8]))


def cars(root: Path) -> None:
    from scipy.io import savemat

    home = root / "stanford_cars"
    (home / "devkit").mkdir(parents=True)
    savemat(home / "devkit/cars_meta.mat", {"class_names": np.array(["A", "B"], object)})
    kind = [("fname", "O"), ("class", "O")]
    for split, n, file in (
        ("train", 20, "devkit/cars_train_annos.mat"),
        ("test", 3, "cars_test_annos_withlabels.mat"),
    ):
        rows = np.array([(f"{k}{i}.jpg", k + 1) for k in range(2) for i in range(n)], kind)
        savemat(home / file, {"annotations": rows})
        for name, label in rows:
            picture(home / f"cars_{split}/{name}", label - 1)


def aircraft(root: Path) -> None:
    home = root / "fgvc-aircraft-2013b/data"
    write(home / "variants.txt", "A 1\nB 2\n")
    for split, n in (("train", 10), ("val", 10), ("test", 3)):
        rows = [(f"{split}{k}{i}", k) for k in range(2) for i in range(n)]
        lines = "".join(f"{name} {('A 1', 'B 2')[k]}\n" for name, k in rows)
        write(home / f"images_variant_{split}.txt", lines)
        for name, k in rows:
            picture(home / f"images/{name}.jpg", k)


def dtd(root: Path) -> None:
    home = root / "dtd/dtd"
    for split, n in (("train", 10), ("val", 10), ("test", 3)):
        names = [f"dots{k}/{split}{i}.jpg" for k in range(2) for i in range(n)]
        write(home / f"labels/{split}1.txt", "\n".join(names))
        for name in names:
            picture(home / "images" / name, int(name[4]))


def pets(root: Path) -> None:
    home = root / "oxford-iiit-pet"
    for split, n in (("trainval", 40), ("test", 3)):
        rows = [(f"Pet_{'ab'[k]}_{split}{i}", k) for k in range(2) for i in range(n)]
        write(home / f"annotations/{split}.txt", "\n".join(f"{s} {k + 1} 1 1" for s, k in rows))
        for name, k in rows:
            picture(home / f"images/{name}.jpg", k)


def caltech101(root: Path) -> None:
    for k, name in enumerate(("BACKGROUND_Google", "anchor")):
        for i in range(33):
            picture(root / f"caltech101/101_ObjectCategories/{name}/image_{i:04}.jpg", k)


def flowers(root: Path) -> None:
    from scipy.io import savemat

    home = root / "flowers-102"
    labels = np.arange(46) % 2 + 1
    home.mkdir()
    savemat(home / "imagelabels.mat", {"labels": labels})
    at = np.arange(1, 47)
    savemat(home / "setid.mat", {"trnid": at[:20], "valid": at[20:40], "tstid": at[40:]})
    for i in at:
        picture(home / f"jpg/image_{i:05}.jpg", int(labels[i - 1]) - 1)


def places365(root: Path) -> None:
    home = root / "places365"
    write(home / "categories_places365.txt", "/a/airfield 0\n/b/bar 1\n")
    rows = [(f"/a/{k}{i}.jpg", k) for k in range(2) for i in range(20)]
    write(home / "places365_train_standard.txt", "".join(f"{s} {k}\n" for s, k in rows))
    for name, k in rows:
        picture(home / f"data_256_standard{name}", k)
    rows = [(f"v{k}{i}.jpg", k) for k in range(2) for i in range(3)]
    write(home / "places365_val.txt", "".join(f"{s} {k}\n" for s, k in rows))
    for name, k in rows:
        picture(home / f"val_256/{name}", k)


def cifar(folder: str, files: list[tuple[str, int]], meta: str, key: str, names: str) -> Any:
    def make(root: Path) -> None:
        (root / folder).mkdir()
        for file, n in files:
            labels = [i % 2 for i in range(n)]
            pixels = np.zeros((n, 3, 1024), np.uint8)
            pixels[:, 0] = 40 * np.array(labels)[:, None]
            held = {"data": pixels.reshape(n, 3072), key: labels}
            (root / folder / file).write_bytes(pickle.dumps(held))
        (root / folder / meta).write_bytes(pickle.dumps({names: ["a", "b"]}))

    return make


BATCHES = [(f"data_batch_{i}", 8) for i in range(1, 6)] + [("test_batch", 6)]
MAKERS: dict[str, Callable[[Path], None]] = {
    "imagenet": imagenet, "food101": food101, "birdsnap": birdsnap, "sun397": sun397,
    "cars": cars, "aircraft": aircraft, "dtd": dtd, "pets": pets, "caltech101": caltech101,
    "flowers": flowers, "places365": places365,
    "cifar10": cifar("cifar-10-batches-py", BATCHES, "batches.meta", "labels", "label_names"),
    "cifar100": cifar(
        "cifar-100-python", [("train", 40), ("test", 6)], "meta", "fine_labels", "fine_label_names"
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _any_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the files that torchvision compares with the published ones."""
    from torchvision.datasets import cifar, flowers102, places365

    for module in (cifar, flowers102, places365):
        monkeypatch.setattr(module, "check_integrity", lambda path, md5=None: Path(path).is_file())


def opened(name: str, root: Path) -> tuple[Task, list[str]]:
    said: list[str] = []
    return open_benchmark(name, root, False, 0, said.append), said


def shown(source: Source) -> list[int]:
    """The labels that the images themselves show."""
    found = []
    for i in range(len(source)):
        image, _ = source.read(i)
        if isinstance(image, bytes):
            image = np.asarray(Image.open(Path(source.locate(i))).convert("RGB"))
        found.append(round(float(image[..., 0].mean()) / 40))
    return found


@pytest.mark.parametrize("name", MAKERS)
def test_layout(name: str, tmp_path: Path) -> None:
    MAKERS[name](tmp_path)
    task, said = opened(name, tmp_path)
    known = BENCHMARKS[name]
    assert task.classes == 2 and len(task.test) == 6 and task.metric == known.metric
    total = {"pets": 80, "caltech101": 60, "birdsnap": 38}.get(name, 40)
    share = known.valid / (known.train + known.valid)
    held = 2 * known.held_per_class if known.held_per_class else max(1, round(total * share))
    held = 20 if name in ("aircraft", "dtd", "flowers") else held  # the authors' own
    assert (len(task.train), len(task.valid)) == (total - held, held)
    for part in (task.train, task.valid, task.test):
        assert part.labels is not None and shown(part) == part.labels.tolist()
    places = [{part.locate(i) for i in range(len(part))} for part in (task.train, task.valid)]
    assert name.startswith("cifar") or len(places[0] | places[1]) == total
    assert f"{known.title} has 2 classes here and {known.classes:,} in the paper" in said


def voc(root: Path) -> Path:
    """Cats in every second image and dogs in every third; one dog is difficult."""
    home = root / "VOCdevkit/VOC2007"
    for split in ("train", "val", "test"):
        names = [f"{split}{i}" for i in range(6)]
        write(home / f"ImageSets/Main/{split}.txt", "\n".join(names))
        for tag, every in (("cat", 2), ("dog", 3)):
            stated = [1 if i % every == 0 else -1 for i in range(6)]
            if tag == "dog":
                stated[3] = 0
            lines = "".join(f"{s} {v:2d}\n" for s, v in zip(names, stated, strict=True))
            write(home / f"ImageSets/Main/{tag}_{split}.txt", lines)
        for i, name in enumerate(names):
            picture(home / f"JPEGImages/{name}.jpg", i)
    return root


def test_several_classes_an_image(tmp_path: Path) -> None:
    task, _ = opened("voc2007", voc(tmp_path))
    assert task.classes == 2 and task.metric == "map11"
    assert isinstance(task.valid, TaggedFiles) and task.valid.tags == ["cat", "dog"]
    assert task.valid.targets.tolist() == [[1, 1], [0, 0], [1, 0], [0, -1], [1, 0], [0, 0]]
    assert task.valid.locate(2).endswith("val2.jpg")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_missing_set_says_what_is_expected_and_where_it_is_published(
    name: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        opened(name, tmp_path)
    said = str(caught.value)
    assert BENCHMARKS[name].files in said and BENCHMARKS[name].page in said
    assert str(tmp_path) in said and "\n" not in said


def test_a_list_that_names_an_unknown_image(tmp_path: Path) -> None:
    lists = voc(tmp_path) / "VOCdevkit/VOC2007/ImageSets/Main"
    write(lists / "train.txt", "train0 unheard-of")
    with pytest.raises(UserError, match="unheard-of"):
        opened("voc2007", tmp_path)


def test_the_page_has_the_same_table() -> None:
    page = (Path(__file__).parent.parent / "docs/evaluations/transfer.md").read_text("utf-8")
    for name, known in BENCHMARKS.items():
        sizes = f"{known.train:,} + {known.valid:,} / {known.test:,}"
        assert f"| `{name}` | {sizes} | " in page and f" | {known.files} | {known.page} |" in page
        figures = (*known.linear, *(known.finetuned or ("-",) * 3))
        cells = ["-" if figure is None else str(figure) for figure in figures]
        assert " | ".join([f"| {known.title}", *cells]) + " |" in page
