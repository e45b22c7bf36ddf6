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


@pytest.mark.parametrize("n", [1, 2, 3, 17, 1000, 1024, 4097])
def test_an_order_place_by_place_is_a_permutation(n: int) -> None:
    order = rng.shuffled(5, 2, n, np.arange(n))
    assert sorted(order.tolist()) == list(range(n))
    for i in (0, n // 2, n - 1):  # whatever else is asked for
        assert rng.shuffled(5, 2, n, np.array([i])) == order[i]
    if n > 100:
        for other in (rng.shuffled(5, 3, n, np.arange(n)), rng.shuffled(6, 2, n, np.arange(n))):
            assert (other == order).sum() < 10  # one on average, as of any two random orders


def test_an_order_place_by_place_is_random() -> None:
    """As of a drawn one: any stretch of places is spread evenly, neighbours are independent."""
    n = 10**9
    order = rng.shuffled(0, 0, n, np.arange(20_000))
    assert len(set(order.tolist())) == 20_000 and 0 <= order.min() and order.max() < n
    counts = np.bincount(order * 50 // n, minlength=50)
    assert ((counts - 400) ** 2 / 400).sum() < 85.4  # chi-square of 49 degrees, one in a thousand
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 4.5 / np.sqrt(20_000)
    digits = np.bincount(order % 31_623, minlength=31_623)  # the network's own second half
    assert digits.max() < 10


def test_of_few_orders_all_are_drawn_equally_often() -> None:
    found = [tuple(rng.shuffled(seed, 0, 4, np.arange(4)).tolist()) for seed in range(4800)]
    counts = np.array([found.count(each) for each in set(found)])
    assert len(counts) == 24 and ((counts - 200) ** 2 / 200).sum() < 49.7  # of 23, likewise


def test_some_of_many() -> None:
    few = rng.some(3, 1000, 10)
    np.testing.assert_array_equal(few, np.random.default_rng(3).permutation(1000)[:10])
    assert sorted(rng.some((3, 1), 5, 10).tolist()) == [0, 1, 2, 3, 4]
    many = rng.some((3, 1), 10**12, 512)
    assert len(set(many.tolist())) == 512 and many.max() > 10**11
    assert (rng.some((3, 2), 10**12, 512) != many).all()
