"""Sentences on the terminal."""

import shutil
import sys
from textwrap import TextWrapper


def say(line: str, indent: str = "") -> None:
    """Print a line, broken between words where a terminal is narrower; files get it whole."""
    line = indent + line
    if sys.stdout.isatty():
        wrapper = TextWrapper(shutil.get_terminal_size().columns, subsequent_indent=indent)
        wrapper.break_long_words = wrapper.break_on_hyphens = False  # paths and flags stay whole
        line = "\n".join(wrapper.fill(part) for part in line.split("\n"))
    print(line, flush=True)


def silence(sentence: str) -> None:
    """`say` of who says nothing."""
