"""The named tables, and tables of the user's own (YAML)."""

import difflib
from pathlib import Path

import yaml

from byol.errors import UserError
from byol.lab import factors, mechanisms
from byol.lab.rows import Row, Table

_MAKERS = (
    mechanisms.table5a,
    mechanisms.table5b,
    factors.batch_size,
    factors.augmentations,
    factors.architecture,
    factors.learning_rate,
    factors.weight_decay,
    mechanisms.loss_normalisation,
    mechanisms.alpha_beta,
    mechanisms.predictor_lr,
    mechanisms.predictor_projector_lr,
    mechanisms.without_batch_statistics,
    mechanisms.relatives,
)
TABLES: dict[str, Table] = {table.name: table for table in (make() for make in _MAKERS)}


def open_table(name: str) -> Table:
    """The named table, or the user's own from a YAML file: `rows`, a list of {name, overrides,
    paper, method}, and at will question, metric, source, baseline (its first row) and shape.

    Raises UserError for a name that is neither, and for a file that is no table.
    """
    if name in TABLES:
        return TABLES[name]
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        near = difflib.get_close_matches(name, TABLES, 3, 0.4) or list(TABLES)
        raise UserError(
            f"there is no table {name!r}; did you mean {' or '.join(near)}, or a .yaml file?"
        )
    try:
        content = yaml.safe_load(path.read_text())
        rows = tuple(Row(**{"overrides": {}, **row}) for row in content.pop("rows"))
        plain = {"question": "", "metric": "", "source": str(path), "baseline": rows[0].name}
        return Table(**{"name": path.stem, **plain, **content, "rows": rows})
    except (OSError, yaml.YAMLError, TypeError, ValueError, LookupError, AttributeError) as e:
        reason = " ".join(str(e).split())
        raise UserError(
            f"{path} is no table ({reason}): it needs `rows`, a list of name, overrides and, if "
            "there is one, the paper's figure"
        ) from e
