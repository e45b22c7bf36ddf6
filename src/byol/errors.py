"""The exceptions that are meant for the person at the keyboard."""

import difflib
from collections.abc import Collection


class UserError(Exception):
    """One sentence: what was found, what is allowed, what to do.

    Raised at the border (command line, configuration, data, run folder). The command line prints
    it without a traceback and exits with code 2.
    """


def unknown(kind: str, name: str, known: Collection[str]) -> UserError:
    """The error for a `name` that is none of `known`: it says those near it, else the first 20."""
    near = difflib.get_close_matches(name, known, 3, 0.5)
    some = ", ".join([*known][:20]) + ", ..." * (len(known) > 20)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {some}"
    return UserError(f"there is no {kind} {name!r}; {hint}")


class Agreed(UserError):
    """A mistake that all processes of a run know of; the first of them says it."""


class Interrupted(Exception):
    """Ctrl-C or SIGTERM; the state of the last whole step is saved."""


class Lost(Exception):
    """Another process of the run ended; the sentence names it and why. Exit code 1.

    speaks: whether this process is the one to say it.
    """

    def __init__(self, sentence: str, speaks: bool = False) -> None:
        super().__init__(sentence)
        self.speaks = speaks
