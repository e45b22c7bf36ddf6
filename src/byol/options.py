"""The configuration by flat names and as plain values: how texts and files become fields."""

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, Literal, cast

from byol.config import GROUPS, Config
from byol.errors import UserError, unknown
from byol.viewspec import ViewSpec


def options() -> Iterator[tuple[str, str, dataclasses.Field[Any], Any]]:
    """(flat name, group, field, type) of every option, in order."""
    for group, kind in GROUPS.items():
        hints = typing.get_type_hints(kind)
        prefix = f"{group}_" if kind is ViewSpec else ""
        for option in fields(kind):
            yield prefix + option.name, group, option, hints[option.name]


def with_options(config: Config, values: Mapping[str, Any]) -> Config:
    """`config` with flat options replaced; texts are parsed by the option's type.

    Raises UserError for an unknown name (with the nearest ones) or a value that does not fit.
    """
    known = {name: (group, option.name, kind) for name, group, option, kind in options()}
    changes: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        if name not in known:
            raise unknown("option", name, known)
        group, attribute, kind = known[name]
        changes.setdefault(group, {})[attribute] = parse(name, value, kind)
    groups = {group: replace(getattr(config, group), **change) for group, change in changes.items()}
    return replace(config, **groups)


def parse(name: str, value: Any, kind: Any) -> Any:
    """`value` (a text from the command line, or a Python value) as the type `kind`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    try:
        if origin in (types.UnionType, typing.Union):  # X | None
            if value is None or (value == "none" and "none" not in typing.get_args(arguments[0])):
                return None
            return parse(name, value, arguments[0])
        if origin is Literal:
            value = str(value).lower() if isinstance(value, bool) else value
            if value not in arguments:
                raise ValueError
            return value
        if origin is tuple:
            parts = value.replace(",", " ").split() if isinstance(value, str) else value
            numbers = tuple(float(part) for part in parts)
            if arguments[0] is int:
                if any(number % 1 for number in numbers):
                    raise ValueError
                numbers = tuple(int(number) for number in numbers)
            if Ellipsis not in arguments and len(numbers) != len(arguments):
                raise ValueError
            return numbers
        if kind is bool:
            return _truth(value)
        if kind is int and isinstance(value, float) and not value.is_integer():
            raise ValueError
        return kind(value)
    except (TypeError, ValueError):
        allowed = " or ".join(map(str, arguments)) if origin is Literal else _words(kind)
        raise UserError(f"{name} is {value!r}, which is not {allowed}") from None


def _truth(value: Any) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    text = str(value).lower()
    if text not in words:
        raise ValueError
    return words[text]


def _words(kind: Any) -> str:
    if typing.get_origin(kind) is tuple:
        sides = typing.get_args(kind)
        return "a list of numbers" if Ellipsis in sides else f"{len(sides)} numbers"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return names.get(kind, str(kind))


def to_dict(config: Config) -> dict[str, Any]:
    """Nested plain values, as written to config.yaml."""
    plain = dataclasses.asdict(config)
    return cast(dict[str, Any], _listed(plain))


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def from_dict(plain: Mapping[str, Any]) -> Config:
    """The inverse of to_dict. Raises UserError for unknown keys."""
    config = Config(recipe=plain.get("recipe", Config.recipe))
    values: dict[str, Any] = {}
    for group, content in plain.items():
        if group in GROUPS:
            prefix = f"{group}_" if GROUPS[group] is ViewSpec else ""
            values.update({prefix + key: value for key, value in content.items()})
        elif group not in ("recipe", "source"):
            raise UserError(f"config.yaml has a key {group!r} that this version does not know")
    return with_options(config, values)


def flat(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested plain values by dotted names: {"optim": {"epochs": 1}} to {"optim.epochs": 1}."""
    found: dict[str, Any] = {}
    for key, value in plain.items():
        is_nested = isinstance(value, Mapping) and value
        found |= flat(value, f"{prefix}{key}.") if is_nested else {f"{prefix}{key}": value}
    return found
