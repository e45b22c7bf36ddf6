"""One row's process: `byol` with a thread that stops it, saved, when whoever started it is gone.

    python -m byol.lab.row pretrain ...        standard input: a pipe held open by the lab

A killed lab leaves no runs behind that way, on any system, and stopping rows is closing pipes.
"""

import os
import signal
import sys
import threading

from byol.cli import main


def _watch() -> None:
    """Wait for the end of standard input, then interrupt: the run saves its state and ends."""
    while os.read(0, 1024):  # not sys.stdin, whose lock would be held at exit
        pass
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    # A shell's background job ignores SIGINT, and so would its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_watch, daemon=True).start()
    sys.exit(main())
