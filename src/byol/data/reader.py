"""Images of a source as the loaders want them, and what happens where one cannot be decoded."""

import numpy as np
import torch
from torch import Tensor

from byol import rng
from byol.data.decode import decode
from byol.data.pixels import DecodeError, to_crop_pixels
from byol.data.source import Source
from byol.errors import UserError

_REPLACEMENT_STREAM = 5  # of random numbers, beside those of the crops
_TRIES = 16  # images tried in the place of one that cannot be decoded
_SEEN_BEFORE_JUDGING = 200  # images, or the whole set where it is smaller


class Decoder:
    """Images of a source as the loaders want them, (1, C, H, W) uint8 or float32 in [0, 1].

    The first `cache_bytes` of decoded images are kept (in each process). at_least: see decode.
    """

    def __init__(
        self,
        source: Source,
        channels: int,
        value_range: tuple[float, float],
        seed: int = 0,
        cache_bytes: int = 0,
        at_least: int | None = None,
    ) -> None:
        self.source, self.channels, self.value_range = source, channels, value_range
        self.at_least = at_least
        self.seed, self._room = seed, cache_bytes
        self._cache: dict[int, tuple[Tensor, int]] = {}

    def read(self, i: int) -> tuple[Tensor, int]:
        """Image i (channels last in memory) and its label, -1 for none; DecodeError or OSError."""
        if i in self._cache:
            return self._cache[i]
        encoded, label = self.source.read(i)
        decoded = decode(encoded, self.channels, at_least=self.at_least)
        array = to_crop_pixels(decoded, self.value_range)  # (H, W, C)
        array = array if array.flags.writeable else array.copy()
        entry = (torch.from_numpy(array).permute(2, 0, 1)[None], -1 if label is None else label)
        if array.nbytes <= self._room:
            self._room -= array.nbytes
            self._cache[i] = entry
        return entry

    def read_or_replace(self, i: int) -> tuple[Tensor, int, dict[int, str]]:
        """Image i, or for one that cannot be decoded another, a function of seed and i.

        Also the label of the image that was taken, and why others (by index) were not.
        """
        bad: dict[int, str] = {}
        n = len(self.source)
        place = i
        for attempt in range(_TRIES):
            try:
                return *self.read(place), bad
            except (DecodeError, OSError) as error:
                bad[place] = f"{self.source.locate(place)}: {error}"
                if attempt == 0:
                    draw = rng.uniforms(
                        self.seed, _REPLACEMENT_STREAM, np.zeros(1), np.array([i]), 1
                    )
                    place = int(draw[0, 0] * n)
                else:
                    place = (place + 1) % n
        raise UserError(
            f"{len(bad)} images could not be decoded in the place of one, such as {bad[i]}; "
            f"check the files of {self.source.name}"
        )


class BadFiles:
    """The images that could not be decoded; too many of them end the run."""

    def __init__(self, source: Source, share: float) -> None:
        self.bad: list[str] = []  # "where: why", each once
        self._source, self._share = source, share
        self._known: set[int] = set()
        self._seen = 0

    def add(self, seen: int, bad: dict[int, str]) -> None:
        """Count images that were asked for and those that failed; UserError above the share.

        Judged once 200 images (or the whole set) were seen, and not for one or two files.
        """
        n = len(self._source)
        self._seen = min(self._seen + seen, n)
        if bad.keys() - self._known:
            listed = set(self.bad)  # a resumed run begins with those of before
            self.bad += [why for why in bad.values() if why not in listed]
            self._known |= bad.keys()
        count = len(self._known)
        enough = self._seen >= min(n, _SEEN_BEFORE_JUDGING) and count > 2
        if enough and count > self._share * self._seen:
            raise UserError(
                f"{count} of {self._seen:,} images of {self._source.name} could not be decoded, "
                f"more than the share of {self._share:g} that is allowed (bad_share), such as "
                f"{self.bad[-1]}"
            )
