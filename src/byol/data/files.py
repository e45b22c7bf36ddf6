"""The loader for sets that are not one tensor of equal images: files decoded by worker processes.

A worker decodes an image once and cuts its crops from it, so that only S x S pixels travel. What it
does is a function of (seed, epoch, index): the number of workers changes nothing.
"""

import atexit
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from byol import ops
from byol.data.loader import WHOLE, Batch, CropSpec, Share, crop_boxes, positions
from byol.data.pixels import DecodeError
from byol.data.reader import BadFiles, Decoder
from byol.data.source import Source
from byol.errors import UserError

_running: WeakSet[Any] = WeakSet()  # iterators of data loaders that have workers
_TOGETHER = 2**24  # numbers in decoded images, up to which their crops are drawn in one call
_SMALL = 64  # pixels; images up to here are evaluated whole, without the 224 / 256 centre crop


def cut(image: Tensor, box: np.ndarray, size: int, antialias: bool = True) -> Tensor:
    """Box (top, left, height, width) of an image (1, C, H, W) to (C, size, size), bicubic."""
    if not antialias:
        return ops.crop_resize(image, torch.from_numpy(box)[None], size, False)[0]
    top, left, height, width = box.tolist()
    crop = image[:, :, top : top + height, left : left + width]
    if (height, width) == (size, size):
        return crop[0]
    # A part of an image would be resized without vector instructions.
    crop = crop.contiguous(memory_format=torch.channels_last)
    out = F.interpolate(crop, (size, size), mode="bicubic", antialias=True)[0]
    return out if out.dtype == torch.uint8 else out.clamp_(0, 1)


def central_box(height: int, width: int, size: int, share: float = 224 / 256) -> np.ndarray:
    """The centre square that evaluation sees, (4,) int64: a share of the shorter side.

    224 / 256 is the paper's resize of the shorter side to size * 256 / 224 and centre crop
    (appendix C.1), in one step; 1 its resize to size (appendix D.2). Images of at most 64 pixels,
    or of just the right size, lose no border.
    """
    shorter = min(height, width)
    whole = shorter <= _SMALL or (height, width) == (size, size)
    side = shorter if whole else int(shorter * share)
    return np.array([(height - side + 1) // 2, (width - side + 1) // 2, side, side])


class _RandomCrops(Dataset[Any]):
    """Batches by their positions [(epoch, index), ...]; errors come back as values."""

    def __init__(
        self,
        decoder: Decoder,
        size: int,
        crops: Sequence[CropSpec],
        rule: str,
        antialias: bool,
    ) -> None:
        self._decoder, self._size = decoder, size
        self._crops, self._rule, self._antialias = crops, rule, antialias

    def __getitems__(self, wanted: list[tuple[int, int]]) -> Any:
        labels: list[int] = []
        bad: dict[int, str] = {}
        crops = torch.empty(0)
        images: list[Tensor] = []  # decoded, not yet cropped
        try:
            for number, (_, index) in enumerate(wanted, 1):
                image, label, failed = self._decoder.read_or_replace(index)
                if number == 1:  # (V, B, S, S, C): channels last, as the decoder gives them
                    shape = (len(self._crops), len(wanted), self._size, self._size, image.shape[1])
                    crops = torch.empty(shape, dtype=image.dtype).transpose(0, 1)
                images.append(image)
                labels.append(label)
                bad |= failed
                if number == len(wanted) or sum(map(Tensor.numel, images)) > _TOGETHER:
                    part = slice(number - len(images), number)
                    self._cut(images, np.array(wanted[part]), crops[part].movedim(-1, 2))
                    images = []
        except UserError as error:
            return error
        return crops.movedim(-1, 2), torch.tensor(labels), np.array(wanted), bad

    def _cut(self, images: list[Tensor], wanted: np.ndarray, crops: Tensor) -> None:
        """Images (1, C, H, W) and their (epoch, index) (n, 2) to crops (n, V, C, S, S)."""
        heights, widths = np.array([image.shape[2:] for image in images]).T
        for view, spec in enumerate(self._crops):
            how = (self._decoder.seed, *wanted.T, view, spec, self._rule)
            for i, box in enumerate(crop_boxes(heights, widths, *how)):
                crops[i, view] = cut(images[i], box, self._size, self._antialias)


class _CentralCrops(Dataset[Any]):
    """Batches by their indices, without the images that cannot be decoded."""

    def __init__(self, decoder: Decoder, size: int, antialias: bool, share: float) -> None:
        self._decoder, self._size = decoder, size
        self._antialias, self._share = antialias, share

    def __getitems__(self, indices: list[int]) -> Any:
        crops, labels, kept = [], [], []
        bad: dict[int, str] = {}
        try:
            for i in indices:
                try:
                    image, label = self._decoder.read(i)
                except (DecodeError, OSError) as error:
                    bad[i] = f"{self._decoder.source.locate(i)}: {error}"
                    continue
                box = central_box(image.shape[2], image.shape[3], self._size, self._share)
                crops.append(cut(image, box, self._size, self._antialias))
                labels.append(label)
                kept.append(i)
        except UserError as error:
            return error
        stacked = torch.stack(crops) if crops else None
        return stacked, torch.tensor(labels, dtype=torch.int64), np.array(kept, np.int64), bad


class _Steps(Sampler[list[tuple[int, int]]]):
    """Positions of one step after another."""

    def __init__(self, positions_of: Callable[[int], Any], start: int, total: int) -> None:
        self._positions_of, self._start, self._total = positions_of, start, total

    def __len__(self) -> int:
        return max(0, self._total - self._start)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self._start, self._total):
            epoch, index = self._positions_of(step)
            yield list(zip(epoch.tolist(), index.tolist(), strict=True))


class FileLoader:
    """Random crops of each image of a source, decoded by `workers` processes (0: by this one).

    Hands over the same Batch as ResidentLoader, its tensors on `device`. An image that cannot be
    decoded is replaced by another and listed in `bad` ("where: why"); Batch.index keeps the place
    that was asked for. Images smaller than the crop are enlarged. at_least: see decode.
    """

    def __init__(
        self,
        source: Source,
        *,
        channels: int,
        value_range: tuple[float, float],
        size: int,
        crops: Sequence[CropSpec],
        batch_size: int,
        seed: int,
        workers: int = 0,
        device: torch.device | str = "cpu",
        rule: str = "torchvision",
        antialias: bool = True,
        bad_share: float = 0.1,
        cache_bytes: int = 0,
        at_least: int | None = None,
        share: Share = WHOLE,
    ) -> None:
        self.share = share
        self.source, self.batch_size, self.seed = source, batch_size, seed
        self.workers, self.device = workers, torch.device(device)
        cached = cache_bytes // max(1, workers)
        decoder = Decoder(source, channels, value_range, seed, cached, at_least)
        self._crops = _RandomCrops(decoder, size, crops, rule, antialias)
        self._bad_files = BadFiles(source, bad_share)
        self.bad = self._bad_files.bad

    def batches(self, start_step: int, total_steps: int) -> Iterator[Batch]:
        """This process's share of the batches of steps start_step to total_steps - 1; UserError
        for too many bad files."""

        def positions_of(step: int) -> tuple[np.ndarray, np.ndarray]:
            epoch, index = positions(self.seed, len(self.source), self.batch_size, step)
            return self.share.of(epoch), self.share.of(index)

        steps = _Steps(positions_of, start_step, total_steps)
        pinned = self.device.type == "cuda"
        for crops, labels, place, bad in in_workers(self._crops, steps, self.workers, pinned):
            self._bad_files.add(len(place), bad)
            crops = crops.to(self.device, non_blocking=True)
            labels = labels.to(self.device, non_blocking=True)
            yield Batch(crops, labels, index=place[:, 1], epoch=place[:, 0])


def images(
    source: Source,
    size: int,
    channels: int,
    value_range: tuple[float, float],
    batch_size: int,
    workers: int = 0,
    indices: Sequence[int] | np.ndarray | None = None,
    antialias: bool = True,
    bad: list[str] | None = None,
    bad_share: float = 0.1,
    share: float = 224 / 256,
) -> Iterator[tuple[Tensor, Tensor, np.ndarray]]:
    """Centre crops (B, C, size, size), labels (B,) int64 and places (B,) in order, for evaluation.

    `indices` chooses some of the images; share: see central_box. One that cannot be decoded is
    left out (so a batch may be smaller) and appended to `bad`; UserError where they are more than
    bad_share, or all of a set.
    """
    judge = BadFiles(source, bad_share)
    found = 0
    order = np.arange(len(source)) if indices is None else np.asarray(indices)
    chunks = [order[i : i + batch_size].tolist() for i in range(0, len(order), batch_size)]
    crops = _CentralCrops(Decoder(source, channels, value_range), size, antialias, share)
    for stacked, labels, kept, failed in in_workers(crops, chunks, workers):
        judge.add(len(kept) + len(failed), failed)
        if bad is not None:
            bad += failed.values()
        if stacked is not None:
            found += len(kept)
            yield stacked, labels, kept
    if not found and indices is None:
        raise UserError(f"no image of {source.name} could be decoded, such as {judge.bad[-1]}")


def in_workers(
    dataset: Dataset[Any], batches: Any, workers: int, pinned: bool = False
) -> Iterator[Any]:
    """dataset.__getitems__(places) for each list of places, in order, by `workers` processes (0:
    this one). A UserError that it returns is raised here."""
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=_ignore_signals,
        pin_memory=pinned,
        generator=torch.Generator(),  # else it would advance the global one
    )
    with _signals_held(workers):  # a worker must not die while it starts
        outputs = iter(loader)
    if workers:
        _running.add(outputs)
    for output in outputs:
        if isinstance(output, UserError):
            raise output
        yield output


@atexit.register
def _stop_workers() -> None:
    """After an exception its traceback holds the iterators, and torch would wait for ever."""
    for outputs in list(_running):
        outputs._shutdown_workers()


def _as_it_is(batch: Any) -> Any:
    return batch


_HELD = (signal.SIGINT, signal.SIGTERM)


def _mask(how: str) -> None:
    """Block or unblock _HELD, where the platform can (not on Windows)."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(getattr(signal, how), _HELD)


def _ignore_signals(worker: int) -> None:
    """Ctrl-C and termination may reach the whole process group; the main process decides.

    The second SIGTERM ends a worker, as it comes from a main process that is leaving.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    _mask("SIG_UNBLOCK")


@contextmanager
def _signals_held(workers: int) -> Iterator[None]:
    """Keep _HELD from workers until each has reached _ignore_signals.

    A forked worker inherits the mask, which torch's own handler of SIGTERM cannot lift; one that a
    fork server or a new interpreter starts imports torch for seconds, and inherits that they are
    ignored. For this process they stay pending.
    """
    if workers == 0 or threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    _mask("SIG_BLOCK")
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _HELD}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _mask("SIG_UNBLOCK")
