"""Times competitors in turns, so that what else the machine does slows all of them alike.

    found = race({"ours": here(ours), "theirs": Elsewhere(...)}, rounds=7)
    publish("views", "Two views of a photograph", found, per="image", base="theirs", notes=[...])

A competitor takes a number of repeats and says what they cost. Processor time is what is compared
on a shared machine: wall time depends on the neighbours.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

import torch

from byol.engine.device import environment

HOME = Path(__file__).parent.parent / "docs"


class Cost(NamedTuple):
    """Seconds: of all threads of the process, and on the clock."""

    cpu: float
    wall: float


Competitor = Callable[[int], Cost]  # what so many repeats cost


class Timing(NamedTuple):
    """Milliseconds for one unit (an image, a step): quartiles and median over the rounds."""

    cpu: tuple[float, float, float]
    wall: tuple[float, float, float]


def here(work: Callable[[], object], units: int = 1) -> Competitor:
    """A function of this process as a competitor; one call does `units` units of work."""

    def run(repeats: int) -> Cost:
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(repeats):
            work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return Cost(
            (time.process_time() - cpu) / units / repeats,
            (time.perf_counter() - wall) / units / repeats,
        )

    return run


def race(
    competitors: Mapping[str, Competitor],
    rounds: int = 7,
    seconds: float = 0.5,
    warm: bool = False,
) -> dict[str, Timing]:
    """Every competitor in every round, in an order that turns; a round of one of them takes
    `seconds` or one repeat, whichever is longer (0: one repeat). The first call of each warms up
    and is not counted; `warm` says that this was done."""
    names = list(competitors)
    repeats = {}
    for name in names:
        repeats[name] = 1
        if not warm:
            competitors[name](1)  # caches, compilation, memory
        if not seconds:
            continue
        start = time.perf_counter()
        competitors[name](1)
        once = time.perf_counter() - start
        repeats[name] = max(1, round(seconds / max(once, 1e-6)))
    costs: dict[str, list[Cost]] = {name: [] for name in names}
    for turn in range(rounds):
        for place in range(len(names)):
            name = names[(turn + place) % len(names)]
            costs[name].append(competitors[name](repeats[name]))
    return {
        name: Timing(_spread([c.cpu for c in found]), _spread([c.wall for c in found]))
        for name, found in costs.items()
    }


def _spread(seconds: Sequence[float]) -> tuple[float, float, float]:
    ms = [1000 * s for s in seconds]
    low, _, high = quantiles(ms, n=4, method="inclusive") if len(ms) > 1 else (ms[0],) * 3
    return low, median(ms), high


def publish(
    name: str,
    title: str,
    timings: Mapping[str, Timing],
    *,
    per: str,
    base: str,
    command: str,
    notes: Sequence[str] = (),
    more: Mapping[str, Any] | None = None,
) -> None:
    """Print a table, ratios to `base` in its last column; write docs/results/speed/NAME.json."""
    print(f"\n{title} (ms of processor time per {per}; wall beside it)")
    print(f"{'':34}{'median':>10}{'quartiles':>24}{'wall':>10}{'ratio':>8}")
    for who, t in timings.items():
        ratio = t.cpu[1] / timings[base].cpu[1]
        spread = f"{t.cpu[0]:.3f} to {t.cpu[2]:.3f}"
        print(f"{who:34}{t.cpu[1]:10.3f}{spread:>24}{t.wall[1]:10.3f}{ratio:8.2f}")
    for note in notes:
        print(f"- {note}")
    machine = {k: v for k, v in environment().items() if k != "command"}
    table = {
        "environment": machine,
        "command": command,
        "title": title,
        "per": per,
        "base": base,
        "rows": {who: {"cpu_ms": t.cpu, "wall_ms": t.wall} for who, t in timings.items()},
        "notes": list(notes),
        **(more or {}),
    }
    target = HOME / "results" / "speed" / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(table, indent=1) + "\n")
