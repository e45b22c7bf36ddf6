"""Views against the official code: with its own draws by value, with ours by their statistics."""

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from byol import views
from byol.views import Draws
from byol.viewspec import PRESETS, T_PRIME, T, ViewSpec

Statistics = dict[str, np.ndarray]
PARAMETERS = ("brightness", "contrast", "saturation", "hue")
GATES = ("flip", "jitter", "grey", "blur", "solarize")
CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))  # every second pixel, starting there
VISITS = 10_240  # of each of the four images, as many as were recorded


def _draws(count: int, **given: np.ndarray) -> Draws:
    """Draws that change nothing but what is given."""
    off = np.zeros(count, bool)
    nothing: dict[str, np.ndarray] = {field.name: off for field in fields(Draws)}
    nothing["turns"] = np.zeros(count, np.int64)
    nothing["jitter_params"] = np.tile([0.0, 1.0, 1.0, 0.0], (count, 1))
    nothing["order"] = np.tile(np.arange(4), (count, 1))
    nothing["sigma"], nothing["threshold"] = np.ones(count), np.full(count, 0.5)
    return Draws(**{**nothing, **given})


def _nchw(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array).permute(0, 3, 1, 2)


def _nhwc(images: Tensor) -> np.ndarray:
    array: np.ndarray = images.permute(0, 2, 3, 1).numpy()
    return array


def test_jitter_in_every_order(golden: Callable[[str], Any]) -> None:
    data = golden("color_chain")
    for order, official in zip(data["orders"], data["output_jitter"], strict=True):
        images = _nchw(data["images"]).clone()
        ours = views.jitter_colours(images, data["params"], np.tile(order, (4, 1)))
        np.testing.assert_allclose(_nhwc(ours), official, rtol=1e-9, atol=1e-10)


def test_gates(golden: Callable[[str], Any]) -> None:
    data = golden("color_chain")
    on, order = np.ones(4, bool), np.tile(data["gates_order"], (4, 1))
    jitter = {"jitter": on, "jitter_params": data["params"], "order": order}
    for name, given in (
        ("output_jitter_grey", {**jitter, "grey": on}),
        ("output_grey_only", {"grey": on}),
        ("output_neither", {}),
    ):
        ours = views.apply(_nchw(data["images"]), _draws(4, **given))
        np.testing.assert_allclose(_nhwc(ours), data[name], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    ("dtype", "atol"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=["float64", "float32"]
)
def test_colours_of_a_mixed_batch(
    dtype: torch.dtype, atol: float, golden: Callable[[str], Any]
) -> None:
    data = golden("color_chain")
    given = {name: data[f"random/{name}"] for name in ("jitter", "grey")}
    draws = _draws(24, jitter_params=data["random/params"], order=data["random/orders"], **given)
    ours = views.apply(_nchw(data["random/images"]).to(dtype), draws)
    np.testing.assert_allclose(_nhwc(ours), data["random/output"], rtol=0, atol=atol)


@pytest.mark.parametrize("view", [1, 2])
def test_whole_pipeline_with_the_official_draws(view: int, golden: Callable[[str], Any]) -> None:
    data = golden("postprocess")

    def array(name: str) -> np.ndarray:
        return np.asarray(data[f"view{view}/{name}"])

    parameters = np.stack([array(name) for name in PARAMETERS], axis=1)
    gates = {name: array(name) for name in (*GATES, "order", "sigma")}
    ours = views.apply(_nchw(array("images_uint8")), _draws(16, jitter_params=parameters, **gates))
    assert ours.dtype == torch.float32
    np.testing.assert_allclose(_nhwc(ours), array("output"), rtol=0, atol=5e-6)


@pytest.mark.parametrize(("view", "spec"), [(1, T), (2, T_PRIME)])
def test_official_settings(view: int, spec: ViewSpec, golden: Callable[[str], Any]) -> None:
    data = golden("postprocess")
    preset = dict(zip(data["preset_names"].tolist(), data[f"view{view}/preset"], strict=True))
    assert PRESETS["natural"][view - 1] == spec
    names = {
        "color_jitter_prob": "jitter",
        "to_grayscale_prob": "grey",
        "blur_apply_prob": "blur",
        "sigma_min": "blur_sigma_min",
        "sigma_max": "blur_sigma_max",
        "solarize_apply_prob": "solarize",
        "solarize_threshold": "solarize_threshold",
        **{name: name for name in PARAMETERS},
    }
    for official, ours in names.items():
        assert getattr(spec, ours) == preset[official], official
    assert (spec.flip, spec.flip_vertical, spec.rotate) == (0.5, 0, 0)
    assert (spec.crop_area_min, spec.crop_area_max) == (0.08, 1)
    assert (spec.crop_ratio_min, spec.crop_ratio_max) == (3 / 4, 4 / 3)


def test_an_image_has_the_same_views_in_any_company() -> None:
    crops = torch.randint(0, 256, (6, 2, 3, 24, 24), dtype=torch.uint8)
    epoch, index = np.array([0, 0, 1, 1, 2, 2]), np.arange(6)
    together = views.make_views(crops, (T, T_PRIME), 5, epoch, index)
    for v, view in enumerate(together):
        backwards = views.make_views(crops.flip(0), (T, T_PRIME), 5, epoch[::-1], index[::-1])[v]
        torch.testing.assert_close(backwards.flip(0), view, rtol=0, atol=1e-6)
        alone = views.make_views(crops[2:3], (T, T_PRIME), 5, epoch[2:3], index[2:3])[v]
        torch.testing.assert_close(alone, view[2:3], rtol=0, atol=1e-6)
        drawn = views.apply(crops[:, v], views.draw((T, T_PRIME)[v], 5, epoch, index, v))
        torch.testing.assert_close(drawn, view, rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_any_number_of_channels(channels: int) -> None:
    crops = torch.rand(8, 2, channels, 24, 24)
    spec = replace(T, grey=1.0, solarize=0.5, rotate=0.5, flip_vertical=0.5)
    before = crops.clone()
    for view in views.make_views(crops, (spec, spec), 0, np.zeros(8, np.int64), np.arange(8)):
        assert view.shape == (8, channels, 24, 24)
        assert 0 <= view.min() and view.max() <= 1
    assert torch.equal(crops, before)


def test_zero_probabilities_change_nothing() -> None:
    still = ViewSpec(flip=0, jitter=0, grey=0, blur=0)
    crops = torch.rand(4, 2, 3, 16, 16)
    seen = views.make_views(crops, (still, still), 0, np.zeros(4, np.int64), np.arange(4))
    torch.testing.assert_close(torch.stack(seen, 1), crops, rtol=0, atol=0)


# ---------------------------------------------------------------------------------------------
# Our own draws: 40,960 of each view.


def _moments(values: np.ndarray) -> Statistics:
    """Mean and deviation over draws (first axis), each with its standard error."""
    count, mean, std = len(values), values.mean(0), values.std(0)
    fourth = ((values - mean) ** 4).mean(0)
    return {
        "mean": mean,
        "mean_se": std / np.sqrt(count),
        "std": std,
        "std_se": np.sqrt(np.maximum(fourth - std**4, 0) / count) / np.maximum(2 * std, 1e-30),
    }


def _summaries(x: Tensor) -> dict[str, Tensor]:
    """The recorded numbers of each output (B, 3, 24, 24)."""
    edges = [(16 * j - 0.5) / 255 for j in range(17)]
    below = torch.stack([(x < edge).flatten(1).float().mean(1) for edge in edges], 1)  # (B, 17)
    return {
        "channel_mean": x.mean((2, 3)),
        "channel_std": x.std((2, 3), correction=0),
        "abs_dx": x.diff(dim=3).abs().mean((1, 2, 3)),
        "frac_zero": (x < 1e-4).flatten(1).float().mean(1),
        "frac_one": (x > 1 - 1e-4).flatten(1).float().mean(1),
        "hist": below.diff(dim=1),
        "lr": x[..., :12].mean((2, 3)) - x[..., 12:].mean((2, 3)),
        "grey": ((x.amax(1) - x.amin(1)).flatten(1).amax(1) < 1e-6).float(),
    }


def _batches(images: np.ndarray, visits: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The two views of one image at a time, by its visits 0 to VISITS - 1."""
    for i, image in enumerate(_nchw(images)):
        for start in range(0, VISITS, visits):
            epoch = np.arange(start, start + visits)
            crops = image.expand(visits, 2, 3, 24, 24)
            yield views.make_views(crops, (T, T_PRIME), 1, epoch, np.full(visits, i))


@pytest.fixture(scope="module")
def statistics(golden: Callable[[str], Any]) -> dict[str, Statistics]:
    """Statistics by name, "view1/channel_mean" for instance; the first axis is the image."""
    values: dict[str, list[Tensor]] = {}
    powers = torch.zeros(2, 4, 4, 3, 24, 24, dtype=torch.float64)  # view, power - 1, image, ...
    products = torch.zeros(2, 4, 2, 2, 432, 432, dtype=torch.float64)  # view, image, corner, ...
    visits = 512
    for k, pair in enumerate(_batches(golden("random_statistics")["images_uint8"], visits)):
        for v, x in enumerate(pair):
            for name, value in _summaries(x).items():
                values.setdefault(f"view{v + 1}/{name}", []).append(value)
            centred = x - 0.5
            i = k // (VISITS // visits)
            for power in range(4):
                powers[v, power, i] += (centred ** (power + 1)).sum(0)
            for row, column in CORNERS:
                quarter = centred[:, :, row::2, column::2].permute(0, 2, 3, 1).flatten(1)
                products[v, i, row, column] += quarter.T @ quarter
        mse = (pair[0] - pair[1]).square().mean((1, 2, 3))
        values.setdefault("cross", []).append(mse)
    out = {}
    for name, parts in values.items():
        by_image = torch.cat(parts).unflatten(0, (4, VISITS)).transpose(0, 1)  # (draws, 4, ...)
        out[name] = _moments(by_image.double().numpy())
    for v, (m1, m2, m3, m4) in enumerate((powers / VISITS).permute(0, 1, 2, 4, 5, 3).numpy()):
        variance = m2 - m1**2
        fourth = m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
        out[f"view{v + 1}/pixel"] = {
            "mean": m1 + 0.5,
            "mean_se": np.sqrt(variance / VISITS),
            "std": np.sqrt(variance),
            "std_se": np.sqrt((fourth - variance**2) / VISITS / (4 * variance)),
            "products": products[v].numpy() / VISITS,  # (4, 2, 2, 432, 432) of pixels - 0.5
        }
    return out


def _z(ours: Statistics, official: Any, key: str, kind: str) -> np.ndarray:
    """Differences in standard errors; a number that does not vary in either must agree."""
    other_se = official[f"{key}{kind}_se"] if f"{key}{kind}_se" in official else ours[f"{kind}_se"]
    se = np.sqrt(ours[f"{kind}_se"] ** 2 + other_se**2)
    difference = ours[kind] - official[f"{key}{kind}"]
    assert (abs(difference[se < 1e-9]) < 1e-6).all()
    return np.where(se < 1e-9, 0, difference / np.maximum(se, 1e-9))


@pytest.mark.parametrize("view", [1, 2])
@pytest.mark.parametrize("kind", ["mean", "std"])
def test_summaries_of_random_views(
    view: int, kind: str, statistics: dict[str, Statistics], golden: Callable[[str], Any]
) -> None:
    data = golden("random_statistics")
    for name in (
        "channel_mean", "channel_std", "abs_dx", "frac_zero", "frac_one", "hist", "lr",
    ):  # fmt: skip
        z = _z(statistics[f"view{view}/{name}"], data, f"view{view}/out/{name}/", kind)
        assert abs(z).max() < 4.5, name


@pytest.mark.parametrize("view", [1, 2])
def test_share_of_grey_views(
    view: int, statistics: dict[str, Statistics], golden: Callable[[str], Any]
) -> None:
    data, ours = golden("random_statistics"), statistics[f"view{view}/grey"]
    official = {
        "mean": data[f"view{view}/out/grey_fraction"],
        "mean_se": data[f"view{view}/out/grey_fraction_se"],
    }
    assert abs(_z(ours, official, "", "mean")).max() < 4.5


def test_distance_of_the_two_views(
    statistics: dict[str, Statistics], golden: Callable[[str], Any]
) -> None:
    data = golden("random_statistics")
    for kind in ("mean", "std"):
        z = _z(statistics["cross"], data, "cross/view1_view2_mse/", kind)
        assert abs(z).max() < 4.5


def test_every_pixel_of_random_views(
    statistics: dict[str, Statistics], golden: Callable[[str], Any]
) -> None:
    """The pixels of a view rise and fall together, so their root mean square is one draw of a wide
    distribution (0.8 to 1.4 over seeds); the next test has the sharp form."""
    data = golden("random_statistics")
    for kind in ("mean", "std"):
        z = np.stack(
            [_z(statistics[f"view{v}/pixel"], data, f"view{v}/out/pixel_", kind) for v in (1, 2)]
        )
        assert abs(z).max() < 5.5
        assert abs(np.sqrt((z**2).mean()) - 1) < 0.05


def test_pixels_of_random_views_without_their_correlation(
    statistics: dict[str, Statistics], golden: Callable[[str], Any]
) -> None:
    """Differences of the pixels' means along the principal axes of the views, in standard errors:
    independent numbers, so their root mean square is 1 within 5 % whatever the seed."""
    data, found = golden("random_statistics"), []
    for v, i, (row, column) in product((1, 2), range(4), CORNERS):
        ours, official = statistics[f"view{v}/pixel"], data[f"view{v}/out/pixel_mean"]
        at = (i, slice(row, None, 2), slice(column, None, 2))
        mean = ours["mean"][at].ravel() - 0.5
        covariance = ours["products"][i, row, column] - np.outer(mean, mean)
        variance, axes = np.linalg.eigh(covariance)
        kept = variance > 1e-6 * variance[-1]  # float32 arrays hold no more
        z = (mean + 0.5 - official[at].ravel()) @ axes / np.sqrt(abs(variance) * 2 / VISITS)
        found.append(z[kept])
    every = np.concatenate(found)
    assert abs(every).max() < 5.5
    assert abs(np.sqrt((every**2).mean()) - 1) < 0.05


@pytest.mark.parametrize(("view", "spec"), [(1, T), (2, T_PRIME)])
def test_distribution_of_the_draws(view: int, spec: ViewSpec, golden: Callable[[str], Any]) -> None:
    data, count = golden("random_statistics"), 4 * VISITS
    d = views.draw(spec, 1, np.arange(count) // 4, np.arange(count) % 4, view - 1)
    parameters = {**dict(zip(PARAMETERS, d.jitter_params.T, strict=True)), "sigma": d.sigma}

    for gate in GATES:
        share, key = getattr(d, gate).mean(), f"view{view}/draw/{gate}/frequency"
        se = max(np.sqrt(2) * float(data[f"{key}_se"]), 1e-12)
        assert abs(share - data[key]) / se < 4.5, gate
    bits = sum(getattr(d, gate).astype(int) << (4 - i) for i, gate in enumerate(GATES))
    _assert_same_shares(
        np.bincount(bits, minlength=32), data[f"view{view}/draw/gates_joint_counts"]
    )

    for name, values in parameters.items():
        key = f"view{view}/draw/{name}"
        low, high = data[f"{key}/range"]
        assert low <= values.min() < low + 1e-3 * (high - low), name
        assert high >= values.max() > high - 1e-3 * (high - low), name
        for kind, value in (("mean", values.mean()), ("var", values.var())):
            se = np.sqrt(2) * float(data[f"{key}/{kind}_se"])
            assert abs(value - data[f"{key}/{kind}"]) / se < 4.5, name
        tenths = np.histogram(values, 10, (low, high))[0]
        _assert_same_shares(tenths, data[f"{key}/hist10_counts"])

    orders = [tuple(order) for order in data[f"view{view}/draw/orders"].tolist()]
    assert sorted(orders) == sorted(permutations(range(4)))
    which = np.array([orders.index(tuple(order)) for order in d.order.tolist()])
    _assert_same_shares(np.bincount(which, minlength=24), data[f"view{view}/draw/order_counts"])

    columns = [getattr(d, gate) for gate in GATES] + list(parameters.values())
    varying = np.stack([column for column in columns if column.std() > 0]).astype(float)
    off_diagonal = np.corrcoef(varying) - np.eye(len(varying))
    assert abs(off_diagonal).max() < 4.5 / np.sqrt(count)


def _assert_same_shares(ours: np.ndarray, official: np.ndarray) -> None:
    """Two samples of counts of equal size: each cell's difference in standard errors."""
    z = (ours - official) / np.sqrt(np.maximum(ours + official, 1))
    assert abs(z).max() < 4.5


def test_the_two_views_draw_independently() -> None:
    count = 4 * VISITS
    where = np.arange(count) // 4, np.arange(count) % 4
    one, two = (views.draw(T, 1, *where, view).jitter_params for view in (0, 1))
    between = np.corrcoef(one.T, two.T)[:4, 4:]
    assert abs(between).max() < 4.5 / np.sqrt(count)
