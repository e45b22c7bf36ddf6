"""The flags of the command line, made from the configuration's types.

argparse rather than a parser that reads signatures: help must appear before torch is imported,
show the common flags alone, and every mistake must be one sentence.
"""

import argparse
import difflib
import re
import typing
from collections.abc import Sequence
from typing import Any, NoReturn

from byol import __version__
from byol.config import GROUPS
from byol.options import options
from byol.protocols import PROTOCOLS, flags
from byol.viewspec import PRESETS

_TITLES = {
    "optim": "how long and how fast",
    "network": "the networks",
    "objective": "what is trained towards what",
    "data": "the images",
    "train": "the machine, and what is written when",
    "view1": "view 1",
    "view2": "view 2",
}
_DATA_HELP = "folder, list, tar, Parquet, .npy/.npz (path or URL), or: textures, digits"
_CHOICE = re.compile(r"argument (COMMAND|PROTOCOL): invalid choice: '(.*)' \(choose from (.*)\)")
_RUN_HELP = "run folder, encoder.safetensors, weights of others, timm:NAME or torchvision:NAME"


class _Parser(argparse.ArgumentParser):
    """argparse that answers a mistake with one sentence and exit code 2."""

    words: Sequence[str] = ()  # what is parsed

    def error(self, message: str) -> NoReturn:
        wrong = [word for word in message.split() if word.startswith("--")]
        if "required" in message:
            wrong = []
        flags = set(self._flags(self.words))
        near = difflib.get_close_matches(wrong[0].split("=")[0], flags, 2) if wrong else []
        if found := _CHOICE.match(message):
            commands = found[3].replace("'", "").split(", ")
            message = f"there is no {found[1].lower()} {found[2]!r}"
            near = difflib.get_close_matches(found[2], commands, 2, 0.5)
        hint = f"; did you mean {' or '.join(near)}?" if near else f" (see {self.prog} --help)"
        self.exit(2, f"{self.prog}: {message}{hint}\n")

    def _flags(self, words: Sequence[str]) -> list[str]:
        """All flags of this parser and of the commands among the words."""
        flags = [flag for action in self._actions for flag in action.option_strings]
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name in set(words) & set(action.choices):
                    flags += action.choices[name]._flags(words)
        return flags


def _config_flags(parser: argparse.ArgumentParser, show_all: bool) -> None:
    """One flag for every option of the configuration; the uncommon ones show in --help-all."""
    parser.add_argument("--recipe", metavar="NAME", help="starting point (see byol recipes)")
    parser.add_argument("--preset", metavar="NAME", help=f"views for: {', '.join(PRESETS)}")
    parser.add_argument("--help-all", action="store_true", help="every option, grouped")
    groups = {name: parser.add_argument_group(_TITLES[name]) for name in GROUPS}
    common = parser.add_argument_group("common options")
    for name, group, option, kind in options():
        is_common = option.metadata.get("common", False)
        home = common if is_common and not show_all else groups[group]
        _flag(home, name, kind, option.metadata["help"] if is_common or show_all else None)


def _flag(home: Any, name: str, kind: Any, sentence: str | None) -> None:
    """The flag of an option, whose text is parsed by its type later. No sentence: hidden."""
    extra: dict[str, Any] = {"nargs": "?", "const": "true"} if kind is bool else {}
    home.add_argument(
        "--" + name.replace("_", "-"),
        metavar=_metavar(kind),
        default=argparse.SUPPRESS,
        help=sentence.replace("%", "%%") if sentence else argparse.SUPPRESS,
        **extra,
    )


def _metavar(kind: Any) -> str:
    if type(None) in typing.get_args(kind):  # X | None
        kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) is typing.Literal:
        return "|".join(typing.get_args(kind))
    return {int: "N", float: "X", bool: "true|false"}.get(kind, "...")


def build_parser(show_all: bool = False) -> _Parser:
    """The whole command line."""
    parser = _Parser("byol", description="Learn image features without labels (BYOL).")
    parser.add_argument("--version", action="version", version=f"byol {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    commands.required = True

    def command(name: str, help: str, usage: str | None = None) -> argparse.ArgumentParser:
        return commands.add_parser(
            name, help=help, description=help, usage=usage, allow_abbrev=False
        )

    usage = "byol pretrain [DATA] [options]"
    pretrain = command("pretrain", "train an encoder on images, and say whether it learned", usage)
    pretrain.add_argument(
        "data", nargs="?", metavar="DATA", help=f"{_DATA_HELP} (default: textures)"
    )
    pretrain.add_argument(
        "--out", default="runs/byol", metavar="DIR", help="run folder (runs/byol)"
    )
    pretrain.add_argument("--quiet", action="store_true", help="print warnings and errors alone")
    _config_flags(pretrain, show_all)

    evaluate = command("evaluate", "measure a trained encoder on labelled images")
    _evaluate_flags(evaluate)

    embed = command("embed", "write the features of images")
    _run_and_data(embed)
    embed.add_argument("--out", required=True, metavar="FILE", help="features.npz or .parquet")
    embed.add_argument("--split", metavar="NAME", help="which split of the data (train)")

    index = command("index", "write where each image of a large set of tar shards lies")
    index.add_argument("data", metavar="DATA", help="tar shards: a file or folder, or its URL")
    index.add_argument("--out", required=True, metavar="FILE", help="FILE.index, to give as DATA")
    index.add_argument("--split", metavar="NAME", help="which split of the data (train)")

    convert = command("convert", "write the weights of others as encoder.safetensors and .json")
    convert.add_argument("run", metavar="FILE", help=_RUN_HELP)
    convert.add_argument("--out", required=True, metavar="DIR", help="folder for the two files")

    views = command("views", "show what the views of your images look like")
    views.add_argument("data", nargs="?", metavar="DATA", help=f"{_DATA_HELP} (default: textures)")
    views.add_argument("--preset", metavar="NAME", help=f"one of: {', '.join(PRESETS)}")
    views.add_argument("--image-size", type=int, help="side of a view in pixels")
    views.add_argument("--out", default="views.png", metavar="FILE", help="picture (views.png)")
    views.add_argument("--seed", type=int, default=0, help="other draws")

    _ablate_flags(command("ablate", "run a table of ablations beside the paper's"), show_all)
    compare = command("compare", "show what differs between two runs")
    for name in ("run_a", "run_b"):
        compare.add_argument(name, metavar=name.upper(), help="run folder")
    compare.add_argument("--out", default="compare.png", metavar="FILE", help="(compare.png)")

    command("doctor", "say what this machine offers and what is missing")
    recipes = command("recipes", "list the recipes, or print one with all its values")
    recipes.add_argument("name", nargs="?", help="print this one as config.yaml would hold it")
    recipes.add_argument("--images", type=int, help="number of images the rule is asked for")
    recipes.add_argument("--epochs", type=float, help="passes over them")
    recipes.add_argument("--batch-size", type=int, help="images per step")
    return parser


def _evaluate_flags(parser: argparse.ArgumentParser) -> None:
    """A command for each protocol, with its own options, and one that puts results together."""
    kinds = parser.add_subparsers(dest="protocol", metavar="PROTOCOL", parser_class=_Parser)
    kinds.required = True
    for name, kind in PROTOCOLS.items():
        text = kind.__doc__ or ""
        protocol = kinds.add_parser(name, help=text, description=text, allow_abbrev=False)
        _run_and_data(protocol)
        protocol.add_argument("--out", metavar="DIR", help="results go here (RUN/evaluations)")
        if any(flag == "baselines" for flag, _, _ in flags(name)):
            protocol.add_argument(
                "--beside", metavar="[NAME=]ENCODER", action="append", default=[],
                help="another encoder for the same table, as RUN; may be given several times",
            )  # fmt: skip
        for flag, value_type, sentence in flags(name):
            _flag(protocol, flag, value_type, sentence)

    text = "one table and one picture of what runs have been measured at, side by side"
    report = kinds.add_parser("report", help=text, description=text, allow_abbrev=False)
    report.add_argument("runs", nargs="+", metavar="RUN", help="run folder; seeds are averaged")
    report.add_argument("--out", default="report", metavar="DIR", help="results go here (report)")


def _ablate_flags(parser: argparse.ArgumentParser, show_all: bool) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="a table of --list, or a YAML file")
    parser.add_argument("data", nargs="?", metavar="DATA", help="as for pretrain (textures)")
    parser.add_argument("--list", action="store_true", dest="listed", help="what each table asks")
    parser.add_argument(
        "--print", action="store_true", dest="printed", help="every row as a command, nothing run"
    )
    parser.add_argument("--seeds", type=int, default=2, metavar="N", help="runs of each row (2)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time (1)")
    parser.add_argument("--out", metavar="DIR", help="folder of the table (runs/NAME)")
    parser.add_argument("--figure", choices=["knn", "linear"], help="which result is compared")
    _config_flags(parser, show_all)


def _run_and_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help=_RUN_HELP)
    parser.add_argument("data", metavar="DATA", help=_DATA_HELP)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    parser.add_argument("--workers", type=int, default=0, help="processes that read files (0)")
    parser.add_argument("--image-size", type=int, help="side in pixels (the encoder's own)")


def parse(words: list[str]) -> dict[str, Any]:
    """The words of a command as the arguments of its function, `command` among them. Exits with
    code 2 and one sentence where they make none, with 0 where help was asked for."""
    if not words:
        words = ["--help"]
    if "--help-all" in words:
        build_parser(show_all=True).parse_args([words[0], "--help"])
    parser = build_parser()
    parser.words = words
    arguments = vars(parser.parse_args(words))
    arguments.pop("help_all", None)
    return arguments
