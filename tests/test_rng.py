"""The counter-based generator: published answers, and independence of history."""

import numpy as np
import pytest

from byol import rng


def _words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [  # kat_vectors of the Random123 library, philox4x32 with 10 rounds
        (
            "00000000 00000000 00000000 00000000",
            "00000000 00000000",
            "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
        ),
        (
            "ffffffff ffffffff ffffffff ffffffff",
            "ffffffff ffffffff",
            "408f276d 41c83b0e a20bc7c6 6d5451fd",
        ),
        (
            "243f6a88 85a308d3 13198a2e 03707344",
            "a4093822 299f31d0",
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_known_answers(counter: str, key: str, answer: str) -> None:
    k0, k1 = _words(key)
    out = rng.philox(np.array([_words(counter)], np.uint64), (k0, k1))
    assert out.tolist() == [_words(answer)]


def test_uniforms_are_the_words_over_two_to_the_32() -> None:
    drawn = rng.uniforms(0, 0, np.array([0]), np.array([0]), 3)
    assert drawn.tolist() == [[w / 2**32 for w in _words("6627e8d5 e169c58d bc57ac4c")]]


def test_neither_order_nor_batch_matters() -> None:
    epoch, index = np.arange(50) % 3, np.arange(50) ** 5
    together = rng.uniforms(11, 2, epoch, index, 7)
    for i in (49, 0, 17):
        alone = rng.uniforms(11, 2, epoch[i : i + 1], index[i : i + 1], 7)
        np.testing.assert_array_equal(alone[0], together[i])
    backwards = rng.uniforms(11, 2, epoch[::-1], index[::-1], 7)
    np.testing.assert_array_equal(backwards[::-1], together)
    np.testing.assert_array_equal(rng.uniforms(11, 2, epoch, index, 5), together[:, :5])


def test_every_argument_matters() -> None:
    def first(seed: int, stream: int, epoch: int, index: int) -> float:
        drawn = rng.uniforms(seed, stream, np.array([epoch]), np.array([index]), 1)
        return float(drawn[0, 0])

    places = [
        (0, 1, 0, 0), (1, 1, 0, 0), (1 << 32, 1, 0, 0), (0, 2, 0, 0), (0, 1, 1, 0),
        (0, 1, 0, 1), (0, 1, 0, 1 << 32), (-1, 1, 0, 0),
    ]  # fmt: skip
    assert len({first(*place) for place in places}) == len(places)


def test_uniforms_are_uniform() -> None:
    drawn = rng.uniforms(3, 1, np.zeros(20_000, np.int64), np.arange(20_000), 5)
    assert drawn.dtype == np.float64 and drawn.min() >= 0 and drawn.max() < 1
    np.testing.assert_allclose(drawn.mean(0), 0.5, atol=4.5 / np.sqrt(12 * 20_000))
    off_diagonal = np.corrcoef(drawn.T) - np.eye(5)
    assert abs(off_diagonal).max() < 4.5 / np.sqrt(20_000)


def test_permutation() -> None:
    order = rng.permutation(5, 2, 1000)
    assert sorted(order.tolist()) == list(range(1000))
    np.testing.assert_array_equal(order, rng.permutation(5, 2, 1000))
    assert (order != rng.permutation(5, 3, 1000)).any()
    assert (order != rng.permutation(6, 2, 1000)).any()
    assert sorted(rng.permutation(-1, 0, 5).tolist()) == [0, 1, 2, 3, 4]
