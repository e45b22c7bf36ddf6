"""Where a run stands: all that a checkpoint holds, when it is written, how it is taken up again."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch

from byol.engine import checkpoint
from byol.engine.optimizer import full_state
from byol.engine.processes import Processes
from byol.engine.runfolder import RunFolder
from byol.learner import Byol
from byol.monitor import Monitor
from byol.networks.norm import own_averages


@dataclass
class Progressed:
    """How far a run has come."""

    step: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    collapsed: bool = False  # by the last measurement


@dataclass
class Standing:
    """What moves in a run. `keep(learner)` writes the encoder beside each checkpoint; bad: files
    that could not be decoded, filled by the loader. The main process alone has the monitor."""

    folder: RunFolder
    learner: Byol
    optimizer: torch.optim.Optimizer
    monitor: Monitor | None
    bad: list[str]
    keep: Callable[[Byol], None]
    processes: Processes
    at: Progressed = field(default_factory=Progressed)
    saved: float = field(default_factory=time.monotonic)

    def is_due(self, seconds: float) -> bool:
        """Whether the last checkpoint is older than so many seconds."""
        return time.monotonic() - self.saved > seconds

    def resume(self) -> bool:
        """Load the newest checkpoint that is whole in all processes; whether there was one."""
        report = partial(print, file=sys.stderr)
        found = checkpoint.newest(self.folder.checkpoints, report, self.processes)
        if found is None:
            return False
        _, state = found
        self.learner.load_state_dict(state["learner"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.monitor:
            self.monitor.load_state_dict(state["monitor"])
        vars(self.at).update(state["progress"])
        self.bad.extend(state["bad"])
        return True

    def save(self) -> None:
        """Write a checkpoint in the main process, of what all have met; none goes on before it is
        written, as a launcher stops the one that writes when another has ended."""
        self.processes.mean_(own_averages(self.learner))
        met = [file for part in self.processes.gather(list(self.bad)) for file in part]
        self.bad[:] = dict.fromkeys(met)
        collected = full_state(self.optimizer)
        if self.monitor:
            state = {
                "learner": self.learner.state_dict(),
                "optimizer": collected,
                "monitor": self.monitor.state_dict(),
                "progress": dict(vars(self.at)),
                "bad": list(self.bad),
            }
            checkpoint.save(self.folder.checkpoints, self.at.step, state)
        self.processes.gather(None)
        if self.monitor:
            self.keep(self.learner)
        self.saved = time.monotonic()
