"""The run folder: made or recognised, written by one process at a time, one configuration for life.

`config.yaml` holds the whole configuration, so the folder says by itself what was run in it.
"""

import json
import math
import os
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import filelock
import yaml

from byol.engine.files import atomic_write, remove_leftovers, write_error
from byol.errors import UserError
from byol.options import flat, options

CONFIG = "config.yaml"
_LOCK = ".lock"
_HOLDER = ".lock.holder"
_ORPHANS_END_AFTER = 15.0  # seconds in which the data workers of a killed process end by themselves


class RunFolder:
    """`with RunFolder(path) as folder:` makes the folder if needed and holds its lock.

    root: the folder; checkpoints: the sub-folder for them.
    Raises UserError on entering when the path is a file, cannot be written, holds other things than
    a run, or is being written by another process.
    """

    def __init__(self, path: str | Path) -> None:
        self.root = Path(path)
        self.checkpoints = self.root / "checkpoints"
        self._lock = filelock.FileLock(self.root / _LOCK)

    def __enter__(self) -> "RunFolder":
        try:
            self._check_content()
            self.root.mkdir(parents=True, exist_ok=True)
            self._acquire()
        except OSError as error:
            raise write_error(self.root, 0, error) from error
        try:
            self._begin()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        (self.root / _HOLDER).unlink(missing_ok=True)
        self._lock.release()

    def match_config(
        self,
        config: dict[str, Any],
        ignore: Iterable[str] = (),
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        """Write `config` to a new folder; in an old one refuse another configuration.

        config: nested dicts of plain values. ignore: dotted names ("train.workers", or "train" for
            all below it) of what changes no number; these may differ and are written anew.
        defaults: what keys stand for that the folder's file lacks, being older than they are.
        Raises UserError that lists the differing keys with both values.
        """
        path = self.root / CONFIG
        # Tuples become lists, as they are in the file.
        asked = yaml.safe_load(yaml.safe_dump(config, sort_keys=False))
        if path.exists():
            differences = _differences(_read_config(path), asked, tuple(ignore), defaults or {})
            if differences:
                raise UserError(
                    f"{self.root} was started with another configuration "
                    f"({'; '.join(differences)}): ask for the same values to go on with it, or "
                    "give another --out, as a run can be neither changed nor prolonged"
                )
        if not path.exists() or _read_config(path) != asked:
            self.write_yaml(CONFIG, config)

    def write_yaml(self, name: str, content: dict[str, Any]) -> None:
        """Put `content` at `name` in the folder, in the given order, whole or not at all."""
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
        atomic_write(self.root / name, text.encode())

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Put `content` at `name` in the folder, whole or not at all; NaN becomes null."""
        text = json.dumps(_without_nan(content), indent=2, ensure_ascii=False, allow_nan=False)
        atomic_write(self.root / name, text.encode() + b"\n")

    def _check_content(self) -> None:
        """Refuse a file, and a folder that somebody uses for something else."""
        if not self.root.exists():
            return
        if not self.root.is_dir():
            raise UserError(f"{self.root} is a file, a run needs a folder: give another --out")
        names = sorted(path.name for path in self.root.iterdir())
        # A run that was killed before its config.yaml leaves the lock and an empty sub-folder.
        foreign = [name for name in names if not name.startswith(".") and name != "checkpoints"]
        if foreign and CONFIG not in names:
            shown = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
            raise UserError(
                f"{self.root} holds {shown} but no {CONFIG}, so it is no run folder: give a new or "
                "empty folder as --out"
            )

    def _acquire(self) -> None:
        """Take the lock at once, or wait for the orphaned workers of a killed holder, who may
        share its lock for a few seconds."""
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            if not self._holder_was_killed():
                raise self._refusal() from None
            try:
                self._lock.acquire(timeout=_ORPHANS_END_AFTER)
            except filelock.Timeout:
                raise self._refusal() from None

    def _begin(self) -> None:
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
        self.write_json(_HOLDER, holder)
        try:
            self.checkpoints.mkdir(exist_ok=True)
            for folder in (self.root, self.checkpoints):
                remove_leftovers(folder)
        except OSError as error:
            raise write_error(self.checkpoints, 0, error) from error

    def _holder(self) -> dict[str, Any]:
        try:
            holder = json.loads((self.root / _HOLDER).read_text())
        except (OSError, ValueError):
            return {}
        return holder if isinstance(holder, dict) else {}

    def _holder_was_killed(self) -> bool:
        holder = self._holder()
        pid = holder.get("pid")
        if holder.get("host") != socket.gethostname() or not isinstance(pid, int) or pid <= 0:
            return False
        if os.name != "posix":
            return False  # os.kill would end the process there
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False

    def _refusal(self) -> UserError:
        holder = self._holder()
        who = "another process"
        if holder:
            who = "process {pid} on host {host} since {since}".format_map(_Unknown(holder))
        return UserError(
            f"{self.root} is being written by {who}: wait for it, stop it, or give another --out"
        )


class _Unknown(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "unknown"


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        sentence = f"{path} cannot be read ({reason}): restore it or give another --out"
        raise UserError(sentence) from error
    if not isinstance(config, dict):
        raise UserError(f"{path} holds no configuration: restore it or give another --out")
    return config


def _differences(
    written: dict[str, Any],
    asked: dict[str, Any],
    ignore: tuple[str, ...],
    defaults: Mapping[str, Any],
) -> list[str]:
    """One "--epochs: 100 in the folder, 200 asked" for each difference, in the given order."""
    flags = {f"{group}.{o.name}": "--" + n.replace("_", "-") for n, group, o, _ in options()}
    old, new = flat(defaults) | flat(written), flat(asked)
    return [
        f"{flags.get(key, key)}: {_shown(old, key)} in the folder, {_shown(new, key)} asked"
        for key in dict.fromkeys([*new, *old])
        if _shown(old, key) != _shown(new, key)
        and not any(key == name or key.startswith(name + ".") for name in ignore)
    ]


def _shown(values: dict[str, Any], key: str) -> str:
    return json.dumps(values[key]) if key in values else "not set"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
