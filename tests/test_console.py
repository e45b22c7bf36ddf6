"""Sentences on terminals and in files."""

import os
import sys
from typing import Any

import pytest

from byol.console import say


class Terminal:
    """Standard output that says it is one."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True


def test_a_terminal_breaks_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal: Any = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((20, 5)))
    say("one two three four five a/very/long-path/that/stays\nand more", "  ")
    lines = terminal.text.splitlines()
    assert lines == ["  one two three four", "  five", "  a/very/long-path/that/stays", "and more"]


def test_a_file_gets_the_whole_line(capsys: pytest.CaptureFixture[str]) -> None:
    say("word " * 100)
    assert capsys.readouterr().out == "word " * 100 + "\n"
