"""From a table and a base to runs: each row and seed is one `byol pretrain` command and a folder.

Rows are written over the base's complete configuration (see byol.lab.rows for shares of its
values). Rows that come to the same configuration share a run.
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from byol.checks import check
from byol.config import Config
from byol.data.source import open_splits
from byol.errors import UserError
from byol.lab.rows import Row, Table
from byol.options import options, with_options
from byol.resolve import resolve

_NUMBER = r"\d*\.?\d+(?:e[+-]?\d+)?"
_SHARE = re.compile(rf"x\s*({_NUMBER})(?:/({_NUMBER}))?(?: of (\w+))?")
_RULED = {"recipe", "preset", "epochs", "batch_size", "optimizer"}  # others follow from these


@dataclass(frozen=True)
class Run:
    """One row with one seed: where it goes, and its words after `byol pretrain`."""

    row: Row
    seed: int
    folder: str  # inside the table's folder
    values: dict[str, Any]  # the row's overrides as plain values
    words: tuple[str, ...]

    def command(self, out: str | Path) -> str:
        """The run as a line for a shell."""
        return shlex.join(["byol", "pretrain", *self.words, "--out", str(Path(out, self.folder))])


def plain(overrides: Mapping[str, Any], base: Config) -> dict[str, Any]:
    """Overrides with every share ("x1/3", "x1/4 of batch_size") as a number: whole and at least 1
    where the option is whole. Raises UserError for a share of what is no number."""
    values = {name: getattr(getattr(base, g), option.name) for name, g, option, _ in options()}
    kinds = {name: kind for name, _, _, kind in options()}
    found = {}
    for name, value in overrides.items():
        share = _SHARE.fullmatch(value) if isinstance(value, str) else None
        if share is None:
            found[name] = value
            continue
        factor = float(share[1]) / float(share[2] or 1)
        of = share[3] or name
        start = values.get(of)
        if isinstance(start, bool) or not isinstance(start, int | float):
            raise UserError(f"{name} is {value!r}, but the base's {of} is {start}, no number")
        number = 1 - (1 - start) / factor if name == "tau_base" else start * factor
        number = max(0.0, float(f"{number:.6g}"))
        is_whole = kinds.get(name) in (int, int | None)
        found[name] = max(1, round(number)) if is_whole else number
    return found


def plan(
    table: Table,
    data: str | Path | None,
    recipe: str | None,
    seeds: int,
    overrides: Mapping[str, Any],
) -> list[Run]:
    """Every row with every seed, seed by seed, so that a table that is stopped has whole columns.

    overrides: options of the base as flat names; `device` may be several, cuda:0,cuda:1, which
    take turns. Raises UserError where the base or a row has an unknown option; a row whose values
    cannot work is left to fail by itself.
    """
    if seeds < 1:
        raise UserError(f"seeds is {seeds}; it must be 1 or more")
    if data is not None and not isinstance(data, str | Path):
        raise UserError("ablate needs data by its path or name, as every row is its own process")
    given = {name: value for name, value in overrides.items() if value is not None}
    devices = str(given.pop("device", "auto")).split(",")
    source = open_splits(data, given.get("eval_data"), given.get("split")).train
    base, _ = resolve(source, data, recipe, given)
    check(base)
    runs: list[Run] = []
    folders: dict[Config, str] = {}
    first = base.train.seed
    for seed in range(first, first + seeds):
        for row in table.rows:
            values = plain(row.overrides, base)
            if _RULED & set(values):
                asked = {**given, **values}
                config, _ = resolve(source, data, asked.pop("recipe", recipe), asked)
            else:
                config = with_options(base, values)
            config = with_options(config, {"seed": seed})
            folder = folders.setdefault(config, f"{_slug(table, row)}/seed-{seed}")
            device = {} if devices == ["auto"] else {"device": devices[len(runs) % len(devices)]}
            chosen = {"recipe": recipe, **given, **values, "seed": seed, **device}
            runs.append(Run(row, seed, folder, values, _words(data, chosen)))
    _refuse_clashes(table)
    return [replace(run, words=_first(runs, run.folder).words) for run in runs]


def _first(runs: list[Run], folder: str) -> Run:
    return next(run for run in runs if run.folder == folder)


def _words(data: str | Path | None, values: Mapping[str, Any]) -> tuple[str, ...]:
    """`byol pretrain`'s words for flat options."""
    words = [] if data is None else [str(data)]
    for name, value in values.items():
        if value is None and name == "recipe":
            continue
        flag, text = "--" + name.replace("_", "-"), _text(value)
        words += [f"{flag}={text}"] if text.startswith("-") else [flag, text]
    return tuple(words)


def _text(value: Any) -> str:
    if isinstance(value, bool | None):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return ",".join(map(_text, value))
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return str(value)


def _slug(table: Table, row: Row) -> str:
    several = len({row.method for row in table.rows}) > 1
    name = f"{row.method} {row.name}" if several else row.name
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def _refuse_clashes(table: Table) -> None:
    """Two rows may not mean the same folder."""
    seen: dict[str, str] = {}
    for row in table.rows:
        slug = _slug(table, row)
        if slug in seen:
            raise UserError(f"rows {seen[slug]!r} and {row.name!r} need names that differ more")
        seen[slug] = row.name
