"""What a table of ablations is made of: rows of overrides over a base of the reader's choice.

A row's value is either plain or a share of what the base has, so that a table works at any scale:

    "x10"                    ten times the base's own value ("x1/3" a third); of tau_base it is the
                             horizon 1 / (1 - tau) that is multiplied, as tau itself has no scale
    "x1/4 of batch_size"     a quarter of another option of the base

On the paper's own base (recipe paper-300) the named tables give the paper's own values.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """One variation. `paper` is the published figure in %, None where there is none; rows of
    several methods in one table are compared with their own method's baseline."""

    name: str
    overrides: dict[str, Any] = field(default_factory=dict)
    paper: float | None = None
    method: str = "BYOL"


@dataclass(frozen=True)
class Table:
    """A table: what it asks, what the paper's column is and where it stands, the baseline's row
    name, and whether the paper draws it as bars or as curves over an ordered factor."""

    name: str
    question: str
    metric: str
    source: str
    rows: tuple[Row, ...]
    baseline: str = "baseline"
    shape: str = "bars"

    def baseline_of(self, method: str) -> Row | None:
        """The row that a method's other rows are compared with."""
        rows = [row for row in self.rows if row.method == method]
        return next((row for row in rows if row.name == self.baseline), None)


TOP1 = "ImageNet linear top-1 in %, ResNet-50, 300 epochs"
NO_PREDICTOR = {"predictor_depth": 0}
STOP_GRADIENT = {"target": "online"}
TRAINED_TARGET = {"target": "online", "stop_gradient": False}
NEGATIVES = {"beta": 1.0, "alpha": 0.1}
SIMCLR = {**NO_PREDICTOR, **TRAINED_TARGET, **NEGATIVES}
NO_AVERAGE = {"tau_base": 0.0, "tau_schedule": "constant"}
