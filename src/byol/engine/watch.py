"""What a run says of itself on its way: numbers of its steps, measurements, a verdict."""

from dataclasses import dataclass, field
from typing import Any

import torch

from byol.engine.log import Log
from byol.engine.processes import Processes
from byol.engine.progress import Progress
from byol.engine.standing import Progressed
from byol.engine.step import Found
from byol.learner import Byol
from byol.monitor import Monitor, Verdict, batch_numbers
from byol.networks.norm import own_averages


@dataclass
class Watch:
    """Of all processes; the main one alone has monitor and log.

    numbers, verdict: the last measurement.
    """

    learner: Byol
    monitor: Monitor | None
    log: Log | None
    progress: Progress
    processes: Processes
    numbers: dict[str, float] = field(default_factory=dict)
    verdict: Verdict = Verdict("too early", "nothing was measured yet")

    def note(self, at: Progressed, found: Found, lr: float, tau: float) -> dict[str, float]:
        """Log what a step was like, means over the processes."""
        values = torch.cat((found.loss[None], batch_numbers(found.details)))  # (4,)
        self.processes.mean_([values])
        names = ("online_target_cosine", "batch_cosine", "batch_deviation")
        value, *rest = values.tolist()
        numbers = {"loss": value, "lr": lr, "tau": tau, **dict(zip(names, rest, strict=True))}
        if self.log:
            self.log.write(at.step, **numbers, skipped=at.skipped)
        return numbers

    def measure(self, at: Progressed) -> dict[str, Any]:
        """Measure the learner and log it; a verdict that is new and bad is said aloud."""
        before = self.verdict.verdict
        self.processes.mean_(own_averages(self.learner))
        if self.monitor and self.log:
            self.numbers, self.verdict = self.monitor.measure(self.learner, at.step)
            self.log.write(at.step, **self.numbers, verdict=self.verdict.verdict)
        self.verdict = self.processes.from_main(self.verdict)  # the others wait here
        verdict = self.verdict.verdict
        at.collapsed = verdict == "collapsed"
        if verdict != before and verdict in ("doubtful", "collapsed"):
            sentence = f"step {at.step}: {verdict}: {self.verdict.reason}"
            self.progress.say(sentence, warning=self.processes.is_main)
        return {"kNN": self.numbers.get("knn"), "verdict": verdict}
