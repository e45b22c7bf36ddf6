"""The labelled set of NYU Depth v2 (Silberman et al., 2012): one MATLAB 7.3 file, which is HDF5."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from byol.errors import UserError

_TRAIN_SHARE = 795 / 1449  # of the official split
_Split = tuple[str, tuple[int, ...]]  # its name, frames counted from 0


class Frames:
    """Frame to image (H, W, 3) uint8 and depth (H, W) float32 in metres; one frame is read at a
    time, by each process through a handle of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: tuple[int, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_handle": None}

    def __call__(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        if self._handle is None or self._handle[0] != os.getpid():  # not shared across a fork
            self._handle = os.getpid(), _h5py().File(self.path, "r")
        file = self._handle[1]  # MATLAB's columns come first: (N, 3, W, H) and (N, W, H)
        image = np.ascontiguousarray(file["images"][frame].transpose(2, 1, 0))
        depth = np.ascontiguousarray(file["depths"][frame].T, dtype=np.float32)
        return image, np.nan_to_num(depth, nan=0, posinf=0, neginf=0)


def nyu_splits(path: Path) -> dict[str, _Split]:
    """Frames of train and test, as splits.mat beside the file has them (795 and 654), or the first
    55 % and the rest. Raises UserError for another kind of file."""
    count = _count(path)
    beside = path.with_name("splits.mat")
    if not beside.is_file():
        cut = max(1, min(count - 1, round(_TRAIN_SHARE * count)))
        why = f"of {path.name}, not the official split, as there is no splits.mat beside it"
        return {
            "train": (f"first {cut} frames {why}", tuple(range(cut))),
            "test": (f"last {count - cut} frames {why}", tuple(range(cut, count))),
        }
    from scipy.io import loadmat

    try:
        content = loadmat(beside)
        official = {key: content[f"{key}Ndxs"].ravel() - 1 for key in ("train", "test")}
    except Exception as error:  # scipy raises many kinds on other files
        raise UserError(f"{beside} cannot be read as trainNdxs and testNdxs: {error}") from error
    for key, frames in official.items():
        if not len(frames) or frames.min() < 0 or frames.max() >= count:
            raise UserError(
                f"{beside} does not belong to {path}: its {key}Ndxs must be from 1 to {count}"
            )
    return {
        key: (f"{key} of {path.name} by splits.mat", tuple(map(int, frames)))
        for key, frames in official.items()
    }


def _count(path: Path) -> int:
    """Number of frames."""
    h5py = _h5py()
    expected = "the labelled set of NYU Depth v2 is a MATLAB 7.3 (HDF5) file of images and depths"
    if not h5py.is_hdf5(path):
        with open(path, "rb") as file:
            header = file.read(10).decode("ascii", "replace")
        version = "is an older MATLAB file" if header == "MATLAB 5.0" else "is no MATLAB 7.3 file"
        raise UserError(f"{path} {version}: {expected}; take the original or save it with -v7.3")
    with h5py.File(path, "r") as file:
        shapes = [tuple(getattr(file.get(key), "shape", ())) for key in ("images", "depths")]
    (images, depths) = shapes
    fits = len(images) == 4 and images[1] == 3 and depths == (images[0], *images[2:])
    if not fits or images[0] < 2:
        raise UserError(
            f"{path} holds images of shape {images} and depths of shape {depths}; {expected}, "
            "(N, 3, W, H) and (N, W, H)"
        )
    return images[0]


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise UserError("NYU Depth v2 needs h5py: pip install 'byol[nyu]'") from None
    return h5py
