"""Tables that vary a factor: batch size, augmentations, heads, learning rate, weight decay (paper
figure 3 and tables 14 to 17)."""

from typing import Any

from byol.lab.rows import SIMCLR, TOP1, Row, Table


def _both(**changes: float) -> dict[str, Any]:
    """The same change to both views."""
    return {
        f"{view}_{name}": value for view in ("view1", "view2") for name, value in changes.items()
    }


def _two_methods(rows: list[tuple[str, dict[str, Any], float, float]]) -> tuple[Row, ...]:
    """Every variation for BYOL and for SimCLR, with both figures."""
    byol = [Row(name, overrides, figure) for name, overrides, figure, _ in rows]
    simclr = [Row(name, {**SIMCLR, **o}, figure, "SimCLR") for name, o, _, figure in rows]
    return (*byol, *simclr)


def batch_size() -> Table:
    """Smaller batches, summed to the same step (figure 3a)."""
    figures = [(1, 72.5, 67.9), (2, 72.4, 67.8), (4, 72.2, 67.4), (8, 72.2, 66.5)]
    figures += [(16, 71.8, 64.3), (32, 69.6, 63.6), (64, 59.7, 59.2)]
    rows = [
        ("baseline" if n == 1 else f"batch / {n}", {"accumulation": n}, ours, simclr)
        for n, ours, simclr in figures
    ]
    question = (
        "How large must a batch be? As in the paper, batches of 1/N of the baseline's are summed "
        "over N of them before each step, so that learning rate, tau and number of steps stay; the "
        "paper's 4096, 2048 ... 64 are / 1, / 2 ... / 64."
    )
    source = "figure 3a, table 16"
    return Table("batch-size", question, TOP1, source, _two_methods(rows), shape="curves")


def augmentations() -> Table:
    """Augmentations removed, for BYOL and for SimCLR (figure 3b)."""
    crop_only = {"flip": 0, "jitter": 0, "grey": 0, "blur": 0, "solarize": 0}

    def only(*kept: str) -> dict[str, Any]:
        return _both(**{name: zero for name, zero in crop_only.items() if name not in kept})

    rows: list[tuple[str, dict[str, Any], float, float]] = [
        ("baseline", {}, 72.5, 67.9),
        ("no flip", _both(flip=0), 71.9, 67.3),
        ("no blur", _both(blur=0), 71.2, 65.2),
        ("no colour (jitter and grey)", _both(jitter=0, grey=0), 63.4, 45.7),
        ("no jitter", _both(jitter=0), 71.8, 63.7),
        ("no grey", _both(grey=0), 70.3, 61.9),
        ("no blur in view 2", {"view2_blur": 0}, 72.4, 67.5),
        ("no solarise in view 2", {"view2_solarize": 0}, 72.3, 67.7),
        ("no blur, no solarise in view 2", {"view2_blur": 0, "view2_solarize": 0}, 72.2, 67.4),
        ("blur 0.5, solarise 0.2 in both", _both(blur=0.5, solarize=0.2), 72.5, 68.1),
        ("crop alone", only(), 59.4, 40.3),
        ("crop, flip", only("flip"), 60.1, 40.2),
        ("crop, colour", only("jitter", "grey"), 70.7, 64.2),
        ("crop, blur", only("blur"), 61.1, 41.7),
    ]
    question = (
        "How much does each augmentation matter, to BYOL and to SimCLR (which is here the same "
        "network without predictor and target, with negatives, beta 1)? A row sets probabilities "
        "of the base's views to 0, in both views unless it says otherwise."
    )
    return Table("augmentations", question, TOP1, "figure 3b, table 17", _two_methods(rows))


def architecture() -> Table:
    """Depth of the heads and size of the projection (table 14)."""
    figures = {
        (1, 1): 61.9, (1, 2): 65.0, (1, 3): 65.7,
        (2, 1): 71.5, (2, 2): 72.5, (2, 3): 71.4,
        (3, 1): 71.4, (3, 2): 72.1, (3, 3): 72.1,
    }  # fmt: skip
    depths = [
        Row(
            "baseline" if (g, q) == (2, 2) else f"projector {g}, predictor {q} layers",
            {"projector_depth": g, "predictor_depth": q},
            figure,
        )
        for (g, q), figure in figures.items()
    ]
    shares = [("/ 16", "x1/16", 69.9), ("/ 8", "x1/8", 71.3), ("/ 4", "x1/4", 72.2)]
    shares += [("/ 2", "x1/2", 72.5), ("x 2", "x2", 72.6)]
    sizes = [Row(f"projection size {s}", {"projection_size": x}, p) for s, x, p in shares]
    question = (
        "How deep should projector and predictor be (linear layers), and how large the projection "
        "(the paper's 16 to 512 as shares of its 256)?"
    )
    return Table("architecture", question, TOP1, "table 14", (*depths, *sizes))


def _factors(option: str, base: float, figures: list[tuple[float, float]]) -> tuple[Row, ...]:
    """Rows that multiply one option, given as the paper's own values."""
    return tuple(
        Row("baseline", {}, figure)
        if value == base
        else Row(f"x {value / base:.2g}", {option: f"x{value:g}/{base:g}"}, figure)
        for value, figure in figures
    )


def learning_rate() -> Table:
    """Multiples of the base learning rate (table 15)."""
    figures = [(0.01, 34.8), (0.1, 65.0), (0.2, 71.7), (0.3, 72.5), (0.4, 72.3), (0.5, 71.5)]
    rows = _factors("base_lr", 0.3, [*figures, (1, 69.4)])
    question = "How exact must the learning rate be? The paper's 0.01 to 1 as multiples of its 0.3."
    return Table("learning-rate", question, TOP1, "table 15", rows, shape="curves")


def weight_decay() -> Table:
    """Multiples of the weight decay (table 15)."""
    figures = [(1e-7, 72.1), (5e-7, 72.6), (1e-6, 72.5), (5e-6, 71.0), (1e-5, 69.6)]
    rows = _factors("weight_decay", 1e-6, figures)
    question = "How exact must weight decay be? The paper's 1e-7 to 1e-5 as multiples of its 1e-6."
    return Table("weight-decay", question, TOP1, "table 15", rows, shape="curves")
