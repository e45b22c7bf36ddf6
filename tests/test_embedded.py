"""The picture sets that come with the package."""

import numpy as np

from byol.data.embedded import TEXTURES, digits, textures


def test_textures_are_balanced_shuffled_and_repeatable() -> None:
    images, labels = textures(203, seed=5)
    assert images.shape == (203, 32, 32, 3) and images.dtype == np.uint8
    assert labels.dtype == np.int64 and len(TEXTURES) == 10
    assert set(np.bincount(labels, minlength=10)) == {20, 21}
    assert (labels != np.sort(labels)).any()
    again, same = textures(203, seed=5)
    np.testing.assert_array_equal(images, again)
    np.testing.assert_array_equal(labels, same)
    other, _ = textures(203, seed=6)
    assert (images != other).any()


def test_statistics_of_textures() -> None:
    images, _ = textures(4000, seed=0)
    pixels = images / 255
    np.testing.assert_allclose(pixels.mean((0, 1, 2)), 0.469, atol=0.01)
    np.testing.assert_allclose(pixels.std((0, 1, 2)), 0.311, atol=0.01)
    assert len(np.unique(images.reshape(4000, -1), axis=0)) == 4000


def test_no_texture_is_blank() -> None:
    """Neighbouring pixels differ, in every class."""
    images, labels = textures(200, seed=1)
    step = abs(np.diff(images.astype(int), axis=2)).mean((1, 2, 3))
    for k in range(10):
        assert step[labels == k].mean() > 10, TEXTURES[k]


def test_digits() -> None:
    images, labels, names = digits()
    assert images.shape == (1797, 8, 8, 1) and images.dtype == np.uint8
    assert (images.min(), images.max()) == (0, 255)
    assert labels.dtype == np.int64 and names == [str(k) for k in range(10)]
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
