"""The configuration: there and back, options by name, and what is refused."""

from dataclasses import replace
from typing import Any, Literal

import pytest
import yaml

from byol.checks import check
from byol.config import FREE, GROUPS, Config, NetworkConfig, Norm, head_norms
from byol.errors import UserError
from byol.options import from_dict, options, parse, to_dict, with_options
from byol.viewspec import PRESETS

CHANGED = with_options(
    Config(),
    {
        "epochs": 0.5, "optimizer": "sgd", "mean": (0.25, 0.5), "workers": 3,
        "value_range": "0 65535", "view2_solarize": 0.125, "view1_crop_area_min": 0.5,
        "reference": True, "eval_data": "some/where", "base_lr": 1e-6,
        "projector_norm": "none", "target": "online", "stop_gradient": "false", "beta": 0.5,
        "predictor_norm": None, "norm_images": "16", "predictor_schedule": "constant",
    },
)  # fmt: skip


@pytest.mark.parametrize("config", [Config(), CHANGED, replace(CHANGED, recipe="demo")])
def test_there_and_back_through_yaml(config: Config) -> None:
    text = yaml.safe_dump(to_dict(config), sort_keys=False)
    assert from_dict(yaml.safe_load(text)) == config


def test_values_arrive() -> None:
    assert CHANGED.optim.epochs == 0.5 and CHANGED.optim.optimizer == "sgd"
    assert CHANGED.data.value_range == (0, 65535) and CHANGED.data.mean == (0.25, 0.5)
    assert (CHANGED.view1.solarize, CHANGED.view2.solarize) == (0, 0.125)
    assert CHANGED.network.reference is True and Config().network.reference is False


def test_no_norm_is_not_the_default_norm() -> None:
    """The text none is a norm's name here, and means unset everywhere else."""
    assert CHANGED.network.projector_norm == "none" and CHANGED.network.predictor_norm is None
    assert CHANGED.network.norm_images == 16 and CHANGED.objective.stop_gradient is False
    assert with_options(CHANGED, {"norm_images": "none"}).network.norm_images is None


def test_a_file_of_before_an_option_existed_means_its_default() -> None:
    plain = to_dict(CHANGED)
    del plain["objective"], plain["optim"]["predictor_lr"], plain["network"]["ridge"]
    assert from_dict(plain) == replace(CHANGED, objective=Config().objective)


@pytest.mark.parametrize(
    ("norm", "heads"),
    [("batch", "batch"), ("group", "layer"), ("group-ws", "group-ws"), ("layer", "layer")],
)
def test_norms_of_the_heads(norm: Norm, heads: Norm) -> None:
    assert head_norms(NetworkConfig(norm=norm)) == (heads, heads)
    asked = NetworkConfig(norm=norm, projector_norm="none", predictor_norm="batch")
    assert head_norms(asked) == ("none", "batch")


def test_every_option_has_a_sentence_and_a_name_of_its_own() -> None:
    names = [name for name, *_ in options()]
    assert len(names) == len(set(names))
    for name, group, option, _ in options():
        assert option.metadata["help"], name
        assert group in GROUPS
    dotted = {f"{group}.{option.name}" for _, group, option, _ in options()}
    assert set(FREE) <= dotted


@pytest.mark.parametrize(
    ("unknown", "near"),
    [("epoch", "epochs"), ("base-lr", "base_lr"), ("view1_solarise", "view1_solarize")],
)
def test_unknown_option_names_the_nearest(unknown: str, near: str) -> None:
    with pytest.raises(UserError, match=rf"{unknown}.*did you mean.*\b{near}\b"):
        with_options(Config(), {unknown: 1})


@pytest.mark.parametrize("plain", [{"optim": {"epoch": 3}}, {"view1": {"flipp": 1}}, {"data2": {}}])
def test_unknown_keys_of_a_file_are_refused(plain: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="epochs|view1_flip|data2"):
        from_dict(plain)


@pytest.mark.parametrize(
    ("value", "kind", "parsed"),
    [
        ("3", int, 3),
        (3.0, int, 3),
        ("1e-3", float, 1e-3),
        (2, float, 2.0),
        ("yes", bool, True),
        ("False", bool, False),
        (True, bool, True),
        ("none", int | None, None),
        (None, str | None, None),
        ("4", int | None, 4),
        ("0.5,0.25 1", tuple[float, ...], (0.5, 0.25, 1.0)),
        ([0, 255], tuple[float, float] | None, (0.0, 255.0)),
        ("lars", Literal["lars", "sgd"], "lars"),
    ],
)
def test_parse(value: Any, kind: Any, parsed: Any) -> None:
    found = parse("option", value, kind)
    assert found == parsed and type(found) is type(parsed)


@pytest.mark.parametrize(
    ("value", "kind", "allowed"),
    [
        ("many", int, "a whole number"),
        (2.5, int, "a whole number"),
        ("1e-3x", float, "a number"),
        ("maybe", bool, "true or false"),
        ("adam", Literal["lars", "sgd", "adamw"], "lars or sgd or adamw"),
        ("1 b", tuple[float, ...], "a list of numbers"),
        (7, tuple[float, ...], "a list of numbers"),
        ("two", int | None, "a whole number"),
        ("1 2 3", tuple[float, float], "2 numbers"),
    ],
)
def test_what_does_not_parse(value: Any, kind: Any, allowed: str) -> None:
    with pytest.raises(UserError, match=f"batch_size is .*{allowed}"):
        parse("batch_size", value, kind)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"optimizer": "adamw", "base_lr": 0.3}, "AdamW.*--base-lr 0.001"),
        ({"optimizer": "sgd", "base_lr": 4.8}, "SGD.*--base-lr"),
        ({"batch_size": 1}, "batch norm needs 2"),
        ({"batch_size": 10, "accumulation": 4}, "equal pieces"),
        ({"batch_size": 8, "accumulation": 8}, "2 images"),
        ({"accumulation": 0}, "accumulation"),
        ({"epochs": 0}, "epochs"),
        ({"base_lr": -1.0}, "base_lr"),
        ({"epochs": "nan"}, "epochs"),
        ({"base_lr": "inf"}, "base_lr"),
        ({"warmup_epochs": -1}, "warmup_epochs"),
        ({"weight_decay": -1e-6}, "weight_decay"),
        ({"momentum": 1.5}, "momentum"),
        ({"tau_base": 1.2}, "tau_base"),
        ({"tau_base": "nan"}, "tau_base"),
        ({"image_size": 4}, "image_size"),
        ({"projector_depth": 0}, "projector_depth"),
        ({"predictor_depth": -1}, "predictor_depth"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"projection_size": 0}, "projection_size"),
        ({"evaluations": 0}, "evaluations"),
        ({"knn_k": 0}, "knn_k"),
        ({"knn_temperature": 0}, "knn_temperature"),
        ({"log_every": 0}, "log_every"),
        ({"workers": -1}, "workers"),
        ({"bad_share": 2}, "bad_share"),
        ({"seed": -1}, "seed"),
        ({"view1_flip": 1.5}, "view1_flip.*0 to 1"),
        ({"view2_crop_area_min": 0.0}, "view2_crop_area_min.*above 0"),
        ({"view1_crop_area_min": 0.9, "view1_crop_area_max": 0.5}, "above view1_crop_area_max"),
        ({"view1_crop_area_max": 1.5}, "0 to 1"),
        ({"view1_crop_ratio_min": 2.0}, "above view1_crop_ratio_max"),
        ({"view1_blur_sigma_min": 0.0}, "view1_blur_sigma_min.*above 0"),
        ({"view2_hue": -0.1}, "view2_hue"),
        ({"stop_gradient": False}, "stop_gradient.*--target online"),
        ({"copy_every": 2, "target": "online"}, "nothing to copy"),
        ({"copy_every": -1}, "copy_every"),
        ({"beta": 1, "loss_normalisation": "layer"}, "cosine"),
        ({"beta": 1.5}, "beta"),
        ({"alpha": 0}, "alpha"),
        ({"beta": 1, "compare": "same"}, "two views"),
        ({"compare": "same", "target": "online"}, "a view with itself"),
        ({"teacher": 0}, "nothing to learn"),
        ({"align": -1}, "align"),
        ({"predictor_lr": -1}, "predictor_lr"),
        ({"ridge": 0, "predictor": "closed-form"}, "ridge"),
        ({"predictor": "closed-form", "predictor_depth": 0}, "no predictor"),
        ({"projector_output_norm": True, "norm": "none"}, "needs a norm"),
        ({"reference": True, "projector_norm": "layer"}, "reference"),
        ({"norm_images": 16, "norm": "group"}, "there is none"),
        ({"norm_images": 48}, "divide the 256 images"),
        ({"norm_images": 256, "accumulation": 2}, "divide the 128 images"),
        ({"norm_images": 1}, "2 or more"),
    ],
)
def test_what_cannot_work_is_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        check(with_options(Config(), values))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"optimizer": "adamw", "base_lr": 0.001},
        {"optimizer": "sgd", "base_lr": 0.1},
        {"base_lr": 4.8},
        {"batch_size": 64, "accumulation": 16},
        {"predictor_depth": 0},
        {"tau_base": 1.0},
        {"tau_base": 0.0},
        {"workers": 0},
        {"target": "online", "stop_gradient": False, "beta": 1, "predictor_depth": 0},
        {"teacher": -1, "align": 1, "compare": "same"},
        {"norm_images": 64, "accumulation": 4, "projector_norm": "layer"},
        {"predictor_lr": 0, "copy_every": 1},
    ],
)
def test_what_can_work_is_not(values: dict[str, Any]) -> None:
    check(with_options(Config(), values))


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_can_work(name: str) -> None:
    view1, view2 = PRESETS[name]
    check(replace(Config(), view1=view1, view2=view2))


def test_steps() -> None:
    config = with_options(Config(), {"epochs": 2.5, "batch_size": 30, "warmup_epochs": 1})
    assert config.steps(100) == (8, 3)
    assert with_options(config, {"warmup_epochs": 99}).steps(100) == (8, 7)


def test_lists_of_whole_numbers() -> None:
    assert parse("k", "1,5, 20", tuple[int, ...]) == (1, 5, 20)
    assert all(type(k) is int for k in parse("k", [1, 5], tuple[int, ...]))
    with pytest.raises(UserError, match="a list of numbers"):
        parse("k", "1,2.5", tuple[int, ...])
