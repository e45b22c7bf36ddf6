"""The command line: each command is a call of a function that Python can call too.

Heavy imports are inside the commands, so that help and mistakes are instant.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from typing import Any

from byol.console import say
from byol.errors import Agreed, Interrupted, Lost, UserError
from byol.parser import parse

# Seconds for the first process to say why all end: torchrun stops it as soon as another has ended.
_SPEAKING = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 2 for a mistake of input, 130 when interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    # Read when torch is loaded: threads that wait for each other sleep after some microseconds.
    # Spinning on, they take from each other what other work leaves of a machine; sleeping at once
    # costs a third of the speed of small networks.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    if "RANK" in os.environ or "SLURM_PROCID" in os.environ:  # torch would show stacks of its own
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # beside our one sentence
    with ExitStack() as silenced:
        if not _is_first():  # of several processes one speaks; the others only of their own faults
            nowhere = silenced.enter_context(open(os.devnull, "w"))
            silenced.enter_context(redirect_stdout(nowhere))
            with redirect_stderr(nowhere):
                arguments = parse(words)
        else:
            arguments = parse(words)
        return _run(arguments)


def _is_first() -> bool:
    """Whether this is the only process, or the first that torchrun or srun started."""
    return os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"


def _run(arguments: dict[str, Any]) -> int:
    """The command; what it raises becomes a sentence and an exit code."""
    try:
        _COMMANDS[arguments.pop("command")](**arguments)
    except UserError as error:
        if _is_first() or not isinstance(error, Agreed):
            print(f"byol: {error}", file=sys.stderr)
        else:
            time.sleep(_SPEAKING)
        return 2
    except Lost as error:
        if error.speaks:
            print(f"byol: {error}", file=sys.stderr)
        return 1
    except Interrupted as stop:
        if _is_first():
            print(f"byol: {stop}; run the same command to go on", file=sys.stderr)
        else:
            time.sleep(_SPEAKING)
        return 130
    except KeyboardInterrupt:
        print("byol: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output (head, less) has left
        sys.stderr.close()
        return 0
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        print(
            "byol: torch and torchvision are of different builds; byol doctor says what to install",
            file=sys.stderr,
        )
        return 2
    return 0


def _pretrain(quiet: bool, **arguments: Any) -> None:
    from byol.api import pretrain

    pretrain(mode="quiet" if quiet else "auto", **arguments)


def _evaluate(protocol: str, **arguments: Any) -> None:
    if protocol == "report":
        from byol.comparison import report

        print(report(**arguments) + f"written to {arguments['out']}/report.md, .csv, .tex, .png")
        return
    from byol.api import evaluate

    evaluate(protocol, **arguments)


def _ablate(name: str | None, listed: bool, printed: bool, **arguments: Any) -> None:
    from byol.lab.tables import TABLES

    if listed or name is None:
        for table in TABLES.values():
            print(f"{table.name}  ({len(table.rows)} rows; {table.source})\n    {table.question}")
        return
    from byol.lab import run

    if printed:
        print("\n".join(run.commands(name, **arguments)))
    else:
        from byol.lab.table import markdown

        print("\n" + markdown(run.ablate(name, **arguments)), end="")


def _compare(**arguments: Any) -> None:
    from byol.lab.compare import compare

    print(compare(**arguments))


def _embed(**arguments: Any) -> None:
    from byol.api import embed

    features, _ = embed(say=print, **arguments)
    print(f"{arguments['out']}: {features.shape[0]} images, {features.shape[1]} features each")


def _index(**arguments: Any) -> None:
    from byol.data.source import write_index

    print(write_index(**arguments))


def _convert(**arguments: Any) -> None:
    from byol.api import convert

    print(f"written to {convert(**arguments)}")


def _views(**arguments: Any) -> None:
    from byol.api import show_views

    print(show_views(**arguments))


def _doctor() -> None:
    from byol.engine.doctor import doctor

    for what, found, verdict in doctor():
        say(f"{what:<14}{found}" + ": ok" * (verdict == "ok"))
        if verdict != "ok":
            say(verdict, " " * 14)


def _recipes(
    name: str | None, images: int | None, epochs: float | None, batch_size: int | None
) -> None:
    import inspect

    import yaml

    from byol import recipes
    from byol.options import to_dict

    def text(key: str) -> str:
        return " ".join((inspect.getdoc(recipes.RECIPES[key][0]) or "").split())

    if name:
        is_fixed = name.startswith("paper")
        number = images or (recipes.IMAGENET_IMAGES if is_fixed else 50_000)
        config, reason = recipes.build(name, number, epochs, batch_size)
        for line in (text(name), *([reason] if reason else [])):
            say(line, "# ")
        print(yaml.safe_dump(to_dict(config), sort_keys=False), end="")
        return
    for key in recipes.RECIPES:
        print(key)
        say(text(key), "    ")
    for size in (400, 4_000, 50_000) if images is None else (images,):
        say(f"rule: {recipes.build('small-32', size, epochs, batch_size)[1]}")


_COMMANDS: dict[str, Callable[..., None]] = {
    "pretrain": _pretrain,
    "evaluate": _evaluate,
    "embed": _embed,
    "index": _index,
    "convert": _convert,
    "ablate": _ablate,
    "compare": _compare,
    "views": _views,
    "doctor": _doctor,
    "recipes": _recipes,
}
