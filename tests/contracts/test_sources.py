"""What every source promises: the same images and labels from every format, cheap to pickle."""

import io
import json
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from byol.data.decode import decode
from byol.data.source import Source, Subset, open_source

N, CLASSES = 6, ["apple", "pear", "plum"]
LABELS = [0, 1, 2, 0, 1, 2]


def _pictures() -> list[np.ndarray]:
    return [np.full((4 + i, 5, 3), 10 * i, np.uint8) for i in range(N)]


def _png(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def _folder(where: Path) -> Path:
    for i, picture in enumerate(_pictures()):
        path = where / "fruit" / CLASSES[LABELS[i]] / "deeper" / f"{i}.PNG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_png(picture))
    (where / "fruit" / "notes.md").write_text("not an image")
    (where / "fruit" / "apple" / "._0.png").write_bytes(b"left behind by a Mac")
    return where / "fruit"


def _list(where: Path) -> Path:
    _folder(where)
    lines = [f"fruit/{CLASSES[LABELS[i]]}/deeper/{i}.PNG\t{CLASSES[LABELS[i]]}" for i in range(N)]
    (where / "list.txt").write_text("\n".join(lines) + "\n\n")
    return where / "list.txt"


def _tar(where: Path) -> Path:
    """Two shards, one with labels in .cls and one in .json members."""
    (where / "shards").mkdir()
    for shard in (0, 1):
        with tarfile.open(where / "shards" / f"{shard:06d}.tar", "w") as tar:
            for i in range(3 * shard, 3 * shard + 3):
                word = CLASSES[LABELS[i]]
                beside = ("cls", word) if shard == 0 else ("json", json.dumps({"label": word}))
                for ending, content in (
                    (beside[0], beside[1].encode()),
                    ("png", _png(_pictures()[i])),
                ):
                    member = tarfile.TarInfo(f"set/{i:04d}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return where / "shards"


def _table(rows: range, where: Path) -> Any:
    import pyarrow as pa

    named = where / "outside.png"  # a row may name a file instead of holding it
    named.write_bytes(_png(_pictures()[1]))
    images: list[dict[str, Any]] = [{"bytes": _png(_pictures()[i]), "path": None} for i in rows]
    if 1 in rows:
        images[1] = {"bytes": None, "path": "../outside.png"}
    features = {
        "picture": {"_type": "Image"},
        "fruit": {"_type": "ClassLabel", "names": CLASSES},
    }
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table(
        {"picture": pa.array(images, kind), "fruit": pa.array([LABELS[i] for i in rows])}
    )
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return table.replace_schema_metadata(metadata)


def _parquet(where: Path) -> Path:
    import pyarrow.parquet as pq

    (where / "table").mkdir()
    for shard in (0, 1):
        table = _table(range(3 * shard, 3 * shard + 3), where)
        pq.write_table(table, where / "table" / f"{shard}.parquet", row_group_size=2)
    return where / "table"


def _hugging_face(where: Path) -> Any:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)}
    )
    pictures = [Image.fromarray(picture) for picture in _pictures()]
    return datasets.Dataset.from_dict({"image": pictures, "label": LABELS}, features=features)


class MapStyle:
    """As torchvision's: (Pillow image, label) and `classes`."""

    classes = CLASSES
    targets = LABELS

    def __len__(self) -> int:
        return N

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        return Image.fromarray(_pictures()[i]), LABELS[i]


class Dictionaries:
    """Items are dicts of a tensor (C, H, W) and a word; labels are found by reading."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, i: int) -> dict[str, Any]:
        import torch

        image = torch.from_numpy(_pictures()[i]).permute(2, 0, 1)
        return {"image": image, "label": CLASSES[LABELS[i]]}


def _subset(where: Path) -> Source:
    from torch.utils.data import Subset as TorchSubset

    source = open_source(TorchSubset(MapStyle(), [5, 0, 1, 2, 3, 4]))  # type: ignore[arg-type,var-annotated]
    return Subset(source, np.array([1, 2, 3, 4, 5, 0]))


FORMATS: dict[str, Callable[[Path], Any]] = {
    "folder": _folder,
    "list": _list,
    "tar": _tar,
    "parquet": _parquet,
    "hugging face": _hugging_face,
    "map-style": lambda where: MapStyle(),
    "dictionaries": lambda where: Dictionaries(),
    "subset": _subset,
}
ORDER = {"folder": [0, 3, 1, 4, 2, 5]}  # by path


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same_images_and_labels(kind: str, tmp_path: Path) -> None:
    source = open_source(FORMATS[kind](tmp_path))
    order = ORDER.get(kind, list(range(N)))
    assert isinstance(source, Source) and len(source) == N
    assert source.labels is not None and source.labels.dtype == np.int64
    assert source.labels.tolist() == [LABELS[i] for i in order]
    assert source.classes == CLASSES
    copy = pickle.loads(pickle.dumps(source))
    for reader in (source, copy):
        for place in (5, 0, 3, 1, 2, 4):
            encoded, label = reader.read(place)
            assert np.array_equal(decode(encoded), _pictures()[order[place]])
            assert label == LABELS[order[place]]
    assert len({source.locate(i) for i in range(N)}) == N


@pytest.mark.parametrize("kind", ["npy", "npz", "array", "pair", "tensor"])
def test_arrays(kind: str, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (N, 4, 5, 3), np.uint8)
    data: Any = {"array": images, "pair": (images, np.array(LABELS))}.get(kind)
    if kind == "tensor":
        import torch

        data = torch.from_numpy(images)
    elif kind == "npy":
        data = tmp_path / "images.npy"
        np.save(data, images)
    elif kind == "npz":
        data = str(tmp_path / "images.npz")
        np.savez(data, images=images, labels=np.array(LABELS)[:, None], classes=CLASSES)
    source = open_source(data)
    pickled = pickle.dumps(source)
    if kind in ("npy", "npz"):
        assert images.tobytes()[:50] not in pickled  # the path travels, not the pixels
    for reader in (source, pickle.loads(pickled)):
        assert np.array_equal(reader.read(4)[0], images[4])
        assert reader.read(4)[1] == (1 if kind in ("npz", "pair") else None)
    assert source.classes == {"npz": CLASSES, "pair": ["0", "1", "2"]}.get(kind)


def test_embedded_sets() -> None:
    digits = open_source("digits")
    assert len(digits) == 1797 and digits.read(0)[0].shape == (8, 8, 1)  # type: ignore[union-attr]
    drawn = open_source(None, "test")
    assert len(drawn) == 2000 and drawn.classes is not None and len(drawn.classes) == 10


def test_real_parquet(data_dir: Path) -> None:
    source = open_source(data_dir / "cifar10")
    assert len(source) == 50_000 and source.labels is not None
    assert source.labels[:5].tolist() == [6, 9, 9, 4, 1]
    assert source.classes is not None and source.classes[6] == "frog"
    assert decode(source.read(49_999)[0]).shape == (32, 32, 3)
    assert source.locate(25_001).endswith("train-00001-of-00002.parquet:row 1")
    test = open_source(data_dir / "cifar10" / "test-00000-of-00001.parquet")
    assert test.labels is not None and test.labels[:5].tolist() == [3, 8, 8, 0, 6]
