"""Run a table: every row and seed is a `byol pretrain` process with a folder of its own.

OUT/table.yaml            what was asked: rows, values, commands
OUT/ROW/seed-0/           the run; its result.json marks it as finished
OUT/ROW/seed-0.log        what it said on standard error
OUT/ROW/seed-0.failed     the reason, where it failed
OUT/table.md .csv .tex .json, picture.png, curves.png
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import filelock
import yaml

from byol.engine.device import cores
from byol.engine.files import atomic_write
from byol.errors import UserError
from byol.lab import pictures
from byol.lab.plan import Run, plan
from byol.lab.rows import Table
from byol.lab.table import PLAN, latex, markdown, read_plan, summarise, to_csv
from byol.lab.tables import open_table

ENDS_WITHIN = 60.0  # seconds that a run which is asked to stop may take to save its state


def _say(line: str) -> None:
    print(line, flush=True)


def ablate(
    name: str,
    data: str | Path | None = None,
    out: str | Path | None = None,
    recipe: str | None = None,
    seeds: int = 2,
    jobs: int = 1,
    figure: str | None = None,
    say: Callable[[str], None] = _say,
    **overrides: Any,
) -> dict[str, Any]:
    """Run every row of a table with every seed, as far as that is not done, and write the tables.

    name: a table of byol.lab.tables, or a YAML file of rows. data, recipe, overrides: the base, as
    for byol.pretrain. out: the table's folder (runs/NAME). jobs: processes at a time, among which
    the cores are divided. figure: "knn" or "linear" (linear where the runs have it).

    A run that fails is recorded with its reason and the others go on; Ctrl-C stops all, saved, and
    the same call goes on. Raises UserError for what cannot work. Returns what table.json holds.
    """
    table = open_table(name)
    folder = _folder(table, out)
    if jobs < 1:
        raise UserError(f"jobs is {jobs}; it must be 1 or more")
    runs = plan(table, data, recipe, seeds, overrides)
    _write_plan(folder, table, runs)
    waiting = list({run.folder: run for run in runs if not _is_done(folder, run)}.values())
    total = len({run.folder for run in runs})
    say(f"{table.name}: {total} runs, {total - len(waiting)} of them done, writing to {folder}")
    try:
        _work_off(folder, waiting, jobs, say)
    finally:
        result = write_tables(folder, figure)
    say(f"written to {folder}: table.md, .csv, .tex, .json, picture.png, curves.png")
    return result


def commands(
    name: str,
    data: str | Path | None = None,
    out: str | Path | None = None,
    recipe: str | None = None,
    seeds: int = 2,
    jobs: int = 1,
    figure: str | None = None,
    **overrides: Any,
) -> list[str]:
    """The runs of `ablate` with the same arguments, each as a line for a shell."""
    table = open_table(name)
    runs = plan(table, data, recipe, seeds, overrides)
    return list(dict.fromkeys(run.command(_folder(table, out)) for run in runs))


def _folder(table: Table, out: str | Path | None) -> Path:
    return Path(out or Path("runs", table.name))


def _is_done(folder: Path, run: Run) -> bool:
    return (folder / run.folder / "result.json").exists()


def _write_plan(folder: Path, table: Table, runs: list[Run]) -> None:
    """Put table.yaml into the folder; refuse a folder whose runs were asked for otherwise."""
    path = folder / PLAN
    lines = [
        {
            "row": run.row.name,
            "method": run.row.method,
            "seed": run.seed,
            "folder": run.folder,
            "values": run.values,
            "command": run.command(folder),
        }
        for run in runs
    ]
    if path.exists():
        before = {line["folder"]: line["command"] for line in read_plan(folder)[1]}
        for line in lines:
            old = before.get(line["folder"], line["command"])
            if old != line["command"]:
                raise UserError(
                    f"{folder} holds runs of other options ({old!r}, now {line['command']!r}): ask "
                    "for the same ones to go on with them, or give another --out"
                )
    folder.mkdir(parents=True, exist_ok=True)
    content = json.loads(json.dumps({"table": asdict(table), "runs": lines}))  # tuples are lists
    text = yaml.safe_dump(content, sort_keys=False, width=100)
    atomic_write(path, text.encode())


def write_tables(folder: Path, figure: str | None = None) -> dict[str, Any]:
    """table.md, .csv, .tex, .json and both pictures of a table's folder, from its runs alone;
    returns what table.json holds."""
    summary = summarise(folder, figure)
    texts = {
        "json": json.dumps(summary, indent=1, ensure_ascii=False) + "\n",
        "md": markdown(summary),
        "csv": to_csv(summary),
        "tex": latex(summary),
    }
    for suffix, text in texts.items():
        atomic_write(folder / f"table.{suffix}", text.encode())
    pictures.differences(summary, folder / "picture.png")
    pictures.projections(folder, folder / "curves.png")
    return summary


def _work_off(folder: Path, waiting: list[Run], jobs: int, say: Callable[[str], None]) -> None:
    """Run all, `jobs` at a time; on the way out, whatever the reason, none is left running."""
    running: list[tuple[Run, subprocess.Popen[bytes], float]] = []
    done, total = 0, len(waiting)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                run = waiting.pop(0)
                running.append((run, _start(folder, run, jobs), time.monotonic()))
            time.sleep(0.1)
            for run, process, begun in [each for each in running if each[1].poll() is not None]:
                running.remove((run, process, begun))
                done += 1
                took = f"{time.monotonic() - begun:.0f} s"
                say(f"{done}/{total} {run.folder}: {_outcome(folder, run, process)} ({took})")
    finally:
        for _, process, _ in running:
            process.stdin.close()  # type: ignore[union-attr]  # it saves and ends, see row.py
        for _, process, _ in running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(ENDS_WITHIN)
            process.kill()


def _start(folder: Path, run: Run, jobs: int) -> "subprocess.Popen[bytes]":
    """The run's process, out of reach of the terminal's Ctrl-C (it is stopped by its pipe)."""
    home = folder / run.folder
    home.mkdir(parents=True, exist_ok=True)
    home.with_name(f"{home.name}.failed").unlink(missing_ok=True)
    with suppress(filelock.Timeout):  # a run of a lab that was killed may still be saving here
        with filelock.FileLock(home / ".lock").acquire(timeout=ENDS_WITHIN):
            pass
    threads = int(os.environ.get("OMP_NUM_THREADS") or cores()) // jobs
    words = ["pretrain", *run.words, "--out", str(home), "--quiet"]
    with open(home.with_name(f"{home.name}.log"), "wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "byol.lab.row", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": str(max(1, threads))},
            start_new_session=True,
        )


def _outcome(folder: Path, run: Run, process: "subprocess.Popen[bytes]") -> str:
    """One phrase on a process that ended; the reason of a failure is kept beside the run."""
    if process.returncode == 0 and _is_done(folder, run):
        return "done"
    home = folder / run.folder
    lines = home.with_name(f"{home.name}.log").read_text(errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    reason = said[-1] if said else f"it ended with code {process.returncode} and said nothing"
    if process.returncode < 0:
        reason = f"it was ended by signal {-process.returncode}"
    reason = reason.removeprefix("byol: ")
    atomic_write(home.with_name(f"{home.name}.failed"), f"{reason}\n".encode())
    return f"failed: {reason}"
