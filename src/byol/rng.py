"""Random numbers as a function of (seed, stream, epoch, image index), never of history.

Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as
1, 2, 3" (2011), evaluated for a whole batch of keys at once. Whoever asks, in whatever order, in
however many processes, gets the same numbers; a resumed run therefore needs its step and nothing
else.
"""

import math

import numpy as np

DRAWN_WHOLE = 2**24  # things up to which an order is drawn as one array
_ORDER_STREAM = 0x7FFF  # of random numbers, beside those of `uniforms`
_ROUNDS = 8  # of the network that shuffles more of them

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)


def philox(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Ten rounds of Philox4x32: counter (M, 4) of 32-bit words and one key to (M, 4) words.

    All words are held in uint64 so that the 32 x 32 bit products fit.
    """
    c0, c1, c2, c3 = counter.T
    k0, k1 = key
    shift = np.uint64(32)
    for _ in range(10):
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (product1 >> shift) ^ c1 ^ np.uint64(k0),
            product1 & _LOW,
            (product0 >> shift) ^ c3 ^ np.uint64(k1),
            product0 & _LOW,
        )
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack((c0, c1, c2, c3), axis=1)


def uniforms(
    seed: int, stream: int, epoch: np.ndarray, index: np.ndarray, count: int
) -> np.ndarray:
    """Uniform numbers in [0, 1) for a batch of images, float64 (B, count).

    `stream` separates uses (crop of view 1, colours of view 2, ...); `epoch` and `index` (B,)
    name the visit and the image. 32 random bits a number.
    """
    size = len(index)
    blocks = -(-count // 4)
    counter = np.empty((size, blocks, 4), np.uint64)  # (B, blocks, 4)
    counter[..., 0] = np.arange(blocks, dtype=np.uint64) | np.uint64(stream << 16)
    counter[..., 1] = epoch.astype(np.uint64)[:, None] & _LOW
    counter[..., 2] = index.astype(np.uint64)[:, None] & _LOW
    counter[..., 3] = index.astype(np.uint64)[:, None] >> np.uint64(32)
    words = philox(counter.reshape(-1, 4), (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF))
    return words.reshape(size, blocks * 4)[:, :count] / 2.0**32


def permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order in which epoch `epoch` visits n images, int64 (n,)."""
    key = np.array([seed & 0xFFFFFFFFFFFFFFFF, epoch], np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).permutation(n)


def shuffled(seed: int, epoch: int, n: int, place: np.ndarray) -> np.ndarray:
    """Which of n things stands at `place` (B,) in an order of them: int64 (B,).

    A bijection that is evaluated place by place and takes no memory, for more than DRAWN_WHOLE. A
    Feistel network (Luby and Rackoff, 1988) over pairs from Z_a x Z_b, of which there are n and a
    few more; what leaves the n is sent through again until it comes back (Black and Rogaway,
    "Ciphers with arbitrary finite domains", 2002).
    """
    a = math.isqrt(n - 1) + 1
    b = -(-n // a)
    found = _network(seed, epoch, (a, b), np.asarray(place, np.int64))
    while (beyond := found >= n).any():
        found[beyond] = _network(seed, epoch, (a, b), found[beyond])
    return found


def some(key: int | tuple[int, ...], n: int, count: int) -> np.ndarray:
    """`count` of n things (all, where there are no more), each at most once, in random order."""
    if n <= DRAWN_WHOLE:
        return np.random.default_rng(key).permutation(n)[:count]
    return shuffled(int(np.random.default_rng(key).integers(2**63)), 0, n, np.arange(count))


def _network(seed: int, epoch: int, sizes: tuple[int, int], place: np.ndarray) -> np.ndarray:
    """The numbers below a b, place by place, in another order."""
    halves = list(np.divmod(place, sizes[1]))
    counter = np.zeros((len(place), 4), np.uint64)
    counter[:, 1] = epoch & 0xFFFFFFFF
    for step in range(_ROUNDS):
        changed, kept = step % 2, 1 - step % 2
        counter[:, 0] = step | _ORDER_STREAM << 16
        counter[:, 2] = halves[kept]
        words = philox(counter, (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF))
        word = (words[:, 0] | words[:, 1] << np.uint64(32)) % np.uint64(sizes[changed])
        halves[changed] = (halves[changed] + word.astype(np.int64)) % sizes[changed]
    return halves[0] * sizes[1] + halves[1]
