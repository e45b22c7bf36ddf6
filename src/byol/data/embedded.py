"""Picture sets that come with the package: drawn textures and scikit-learn's handwritten digits.

`textures`: ten classes of a 32-pixel texture. The class is what the whole picture has in common;
position, angle, period, colours, lighting, warp, an occluding disc and noise are nuisance, so raw
pixels are a poor representation of it, and there is something to learn.
"""

import numpy as np

TEXTURES = (
    "stripes", "checker", "dots", "rings", "bricks",
    "zigzag", "pluses", "triangles", "grid", "blobs",
)  # fmt: skip
_SIDE = 32


def _cell(a: np.ndarray) -> np.ndarray:
    """Coordinate in a unit cell, in [-1/2, 1/2)."""
    return a - np.floor(a) - 0.5


def _pluses(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    p, q = abs(p), abs(q)
    return np.minimum(np.maximum(p - 0.12, q - 0.4), np.maximum(p - 0.4, q - 0.12))


def _bricks(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    row = np.floor(v / 0.6)
    across = _cell(u + 0.5 * (row % 2))
    along = v - 0.6 * row - 0.3
    return 0.08 - np.minimum(0.5 - abs(across), 0.3 - abs(along))


def _triangles(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    angles = np.radians((-90, 30, 150))
    return np.max([p * np.cos(a) + (q + 0.06) * np.sin(a) for a in angles], axis=0) - 0.21


def _checker(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    p_edge, q_edge = np.minimum(abs(p), 0.5 - abs(p)), np.minimum(abs(q), 0.5 - abs(q))
    return -np.sign(p * q) * np.minimum(p_edge, q_edge)


def _field(name: str, u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Signed distance to the figure in periods, negative inside; u, v (n, 32, 32) in periods."""
    p, q = _cell(u), _cell(v)
    if name == "stripes":
        return abs(p) - 0.25
    if name == "checker":
        return _checker(p, q)
    if name == "dots":
        return np.hypot(p, q) - 0.31
    if name == "rings":
        return abs(np.hypot(p, q) - 0.32) - 0.09
    if name == "bricks":
        return _bricks(u, v)
    if name == "zigzag":
        return 0.8 * (abs(_cell(v + 1.3 * abs(p))) - 0.22)
    if name == "pluses":
        return _pluses(p, q)
    if name == "triangles":
        return _triangles(p, q)
    if name == "grid":
        return np.minimum(0.5 - abs(p), 0.5 - abs(q)) - 0.1
    direction, phase = rng.uniform(0, 2 * np.pi, (2, 6, len(u), 1, 1))  # blobs: six waves
    wave = rng.uniform(0.7, 1, (6, len(u), 1, 1)) * 2 * np.pi
    return np.cos(wave * (u * np.cos(direction) + v * np.sin(direction)) + phase).sum(0) / 12


def _draw(name: str, n: int, rng: np.random.Generator) -> np.ndarray:
    """n pictures of one class, (n, 32, 32, 3) uint8."""

    def uniform(low: float, high: float, *shape: int) -> np.ndarray:
        return rng.uniform(low, high, (n, *shape, 1, 1))

    centre = (_SIDE - 1) / 2
    y, x = np.mgrid[:_SIDE, :_SIDE] - centre  # (32, 32) each
    period, angle = uniform(8, 13), np.radians(uniform(-45, 45))
    warp_angle = uniform(0, 2 * np.pi)
    warp = uniform(0, 0.12) * np.sin(
        2 * np.pi * (x * np.cos(warp_angle) + y * np.sin(warp_angle)) / 24 + uniform(0, 2 * np.pi)
    )
    u = (x * np.cos(angle) + y * np.sin(angle)) / period + uniform(0, 1) + warp  # (n, 32, 32)
    v = (-x * np.sin(angle) + y * np.cos(angle)) / period + uniform(0, 1) + warp
    distance = _field(name, u, v, rng) + uniform(-0.03, 0.03)
    coverage = np.clip(0.5 - distance * period, 0, 1)[:, None]  # (n, 1, 32, 32)

    chroma = rng.uniform(-1, 1, (3, n, 3, 1, 1))  # ground, figure, occluder
    chroma = 0.5 * (chroma - chroma.mean(2, keepdims=True))
    lightness, contrast = uniform(0.25, 0.75, 1), uniform(0.25, 0.7, 1)
    ground = lightness - contrast / 2 + chroma[0]  # (n, 3, 1, 1)
    figure = lightness + contrast / 2 + chroma[1]
    picture = ground + (figure - ground) * coverage  # (n, 3, 32, 32)
    light = uniform(0, 2 * np.pi, 1)
    picture += uniform(0, 0.3, 1) * (x * np.cos(light) + y * np.sin(light)) / 16
    radius = np.hypot(x - uniform(-16, 16, 1), y - uniform(-16, 16, 1))
    disc = np.clip(uniform(3, 8, 1) - radius + 0.5, 0, 1)  # (n, 1, 32, 32)
    picture += (uniform(0, 1, 1) + chroma[2] - picture) * disc
    picture += rng.normal(0, 0.05, picture.shape)
    return np.floor(255 * np.clip(picture, 0, 1) + 0.5).astype(np.uint8).transpose(0, 2, 3, 1)


def textures(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """n drawn pictures (n, 32, 32, 3) uint8 and their labels (n,) int64, balanced, shuffled."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(n) % len(TEXTURES)
    images = np.empty((n, _SIDE, _SIDE, 3), np.uint8)
    for k, name in enumerate(TEXTURES):
        at = (labels == k).nonzero()[0]
        images[at] = _draw(name, len(at), rng)
    return images, labels


def digits() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """scikit-learn's 1,797 handwritten digits: (1797, 8, 8, 1) uint8, labels, class names."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = np.floor(data.images * (255 / 16) + 0.5).astype(np.uint8)[..., None]
    return images, data.target.astype(np.int64), [str(k) for k in range(10)]
