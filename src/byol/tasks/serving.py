"""An evaluation over several processes: the main one measures, all of them extract features.

What trains on top of features, or trains the encoder itself, is the main process's alone.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from byol.errors import Agreed, UserError
from byol.tasks.extraction import part
from byol.tasks.subject import Subject


@contextmanager
def served(subject: Subject) -> Iterator[None]:
    """In the main process around what calls `frozen`; a UserError ends the others too."""
    try:
        yield
    except UserError as error:
        subject.processes.from_main(str(error))
        raise Agreed(str(error)) from error
    subject.processes.from_main(None)


def serve(subject: Subject) -> None:
    """What the other processes do: their part of every `frozen` of the main one, until it is done.

    The weights are those of the main process each time, which may have made the encoder anew.
    """
    own = replace(subject, encoder=copy.deepcopy(subject.encoder))
    while (asked := subject.processes.from_main(None)) is not None:
        if isinstance(asked, str):
            raise Agreed(asked)
        weights, source, share = asked
        own.encoder.load_state_dict(weights)
        with suppress(Agreed):  # the main process knows of it, and may go on
            part(own, source, share)
