"""Tables that vary the mechanism: target, predictor, negatives, normalisation, relatives (paper
tables 5 and 18 to 22, and the follow-ups named in each)."""

from byol.lab.rows import (
    NEGATIVES,
    NO_AVERAGE,
    NO_PREDICTOR,
    SIMCLR,
    STOP_GRADIENT,
    TOP1,
    TRAINED_TARGET,
    Row,
    Table,
)


def table5a() -> Table:
    """The target network (table 5a)."""
    rows = (
        Row("constant random network", {"tau_base": 1.0, "tau_schedule": "constant"}, 18.8),
        Row("moving average, horizon x 10", {"tau_base": "x10"}, 69.8),
        Row("baseline", {}, 72.5),
        Row("moving average, horizon / 10", {"tau_base": "x1/10"}, 68.4),
        Row("stop-gradient of online", NO_AVERAGE, 0.3),
    )
    question = (
        "How slowly should the target follow? The paper's tau 0.999, 0.99 and 0.9 are horizons of "
        "10, 1 and 1/10 times the baseline's; as multiples they make sense for any number of steps."
    )
    return Table("table5a", question, TOP1, "table 5a", rows)


def table5b() -> Table:
    """Between BYOL and SimCLR (tables 5b and 19)."""
    target, plain = "moving average", {"beta": 0.0}
    rows = (
        Row("BYOL", {}, 72.5),
        Row(f"predictor, {target}, beta 1", NEGATIVES, 70.9),
        Row(f"no predictor, {target}, beta 1", {**NO_PREDICTOR, **NEGATIVES}, 70.7),
        Row("predictor, stop-gradient, beta 1", {**STOP_GRADIENT, **NEGATIVES}, 70.2),
        Row("SimCLR: no predictor, no target, beta 1", SIMCLR, 69.4),
        Row("predictor, stop-gradient, beta 1 (again)", {**STOP_GRADIENT, **NEGATIVES}, 70.1),
        Row(
            "no predictor, stop-gradient, beta 1",
            {**NO_PREDICTOR, **STOP_GRADIENT, **NEGATIVES},
            69.2,
        ),
        Row("predictor, no target, beta 1", {**TRAINED_TARGET, **NEGATIVES}, 69.0),
        Row("predictor, stop-gradient, beta 0", {**STOP_GRADIENT, **plain}, 5.5),
        Row("predictor, no target, beta 0", {**TRAINED_TARGET, **plain}, 0.3),
        Row(f"no predictor, {target}, beta 0", {**NO_PREDICTOR, **plain}, 0.2),
        Row(
            "no predictor, stop-gradient, beta 0",
            {**NO_PREDICTOR, **STOP_GRADIENT, **plain},
            0.1,
        ),
        Row("no predictor, no target, beta 0", {**NO_PREDICTOR, **TRAINED_TARGET, **plain}, 0.1),
    )
    question = (
        "What stands between BYOL and SimCLR: predictor, target network, negative examples (beta)? "
        "Without a target the gradient flows through both branches. One row is printed twice in "
        "the paper, with two figures."
    )
    return Table("table5b", question, TOP1, "tables 5b and 19", rows, baseline="BYOL")


def loss_normalisation() -> Table:
    """What the loss compares (table 20)."""
    rows = (
        Row("baseline", {}, 72.5),
        Row("layer norm", {"loss_normalisation": "layer"}, 72.5),
        Row("none", {"loss_normalisation": "none"}, 67.4),
        Row("batch norm", {"loss_normalisation": "batch"}, 65.3),
    )
    question = "Which normalisation of prediction and target does the loss need? Baseline: L2."
    return Table("loss-normalisation", question, TOP1, "table 20", rows)


def alpha_beta() -> Table:
    """BYOL with negatives (table 18)."""
    alphas = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0)
    figures = {
        0.1: (72.2, 72.4, 72.7, 72.6, 72.5, 72.5),
        0.5: (70.9, 72.0, 72.7, 72.7, 72.6, 72.5),
        1.0: (53.9, 70.9, 72.7, 72.7, 72.6, 72.6),
    }
    rows = [Row("baseline", {}, 72.5)]
    rows += [
        Row(f"beta {beta:g}, alpha {alpha:g}", {"beta": beta, "alpha": alpha}, figure)
        for beta, line in figures.items()
        for alpha, figure in zip(alphas, line, strict=True)
    ]
    question = "Do negative examples help BYOL, with which weight (beta) and temperature (alpha)?"
    return Table("alpha-beta", question, TOP1, "table 18", tuple(rows))


def predictor_lr() -> Table:
    """No slow target, a faster predictor (table 21)."""
    figures = [(0.0, 0.01), (1.0, 5.5), (2.0, 62.8), (10.0, 66.6), (20.0, 66.3)]
    rows = [Row("baseline", {}, 72.5)]
    rows += [
        Row(f"predictor rate x {rate:g}", {**NO_AVERAGE, "predictor_lr": rate}, figure)
        for rate, figure in figures
    ]
    rows += [Row("closed-form predictor", {**NO_AVERAGE, "predictor": "closed-form"}, 52.5)]
    question = (
        "Is a slow target needed, or a predictor that is ahead? Every row but the baseline takes "
        "the online network as its target (tau 0) and trains the predictor at another rate."
    )
    return Table("predictor-lr", question, TOP1, "table 21 and section 5", tuple(rows))


def predictor_projector_lr() -> Table:
    """No slow target, both heads faster (table 22)."""
    rates = (1.0, 1.5, 2.0, 5.0, 10.0)
    figures = {
        1.0: (3.2, 25.7, 60.8, 66.7, 66.9),
        1.5: (1.4, 9.2, 55.2, 61.5, 66.0),
        2.0: (2.0, 5.3, 15.8, 60.9, 66.3),
        5.0: (1.5, 2.5, 2.5, 20.5, 60.5),
        10.0: (0.1, 2.1, 1.9, 2.8, 8.3),
    }
    rows = [Row("baseline", {}, 72.5)]
    rows += [
        Row(
            f"projector x {projector:g}, predictor x {predictor:g}",
            {**NO_AVERAGE, "projector_lr": projector, "predictor_lr": predictor},
            figure,
        )
        for projector, line in figures.items()
        for predictor, figure in zip(rates, line, strict=True)
    ]
    question = "As predictor-lr, with the projector's learning rate raised as well."
    return Table("predictor-projector-lr", question, TOP1, "table 22", tuple(rows))


def without_batch_statistics() -> Table:
    """Other norms than batch norm (arXiv 2010.10241)."""
    heads = {"projector_norm": "batch", "predictor_norm": "batch"}
    bare = {"projector_norm": "none", "predictor_norm": "none"}
    rows = (
        Row("baseline", {}, 74.3),
        Row("group norm, weight standardisation", {"norm": "group-ws"}, 73.9),
        Row("no normalisation, data-dependent start", {"norm": "none"}, 65.7),
        Row("layer norm", {"norm": "layer"}),
        Row("batch norm in the encoder alone", bare),
        Row("batch norm in the heads alone", {"norm": "none", **heads}),
        Row("batch norm over a quarter of the batch", {"norm_images": "x1/4 of batch_size"}),
    )
    question = (
        "Does BYOL need batch statistics as a hidden comparison between images? Baseline: batch "
        "norm everywhere."
    )
    metric = "ImageNet linear top-1 in %, ResNet-50, 1000 epochs"
    return Table("without-batch-statistics", question, metric, "arXiv 2010.10241", rows)


def relatives() -> Table:
    """Other methods as differences from BYOL."""
    simsiam = {
        **STOP_GRADIENT,
        "projector_depth": 3,
        "projector_output_norm": True,
        "predictor_hidden_size": "x1/4 of hidden_size",
        "predictor_schedule": "constant",
    }
    negatives = {"projector_output_norm": True, "beta": 1.0}
    aligned = {"align": 1.0, "compare": "same"}
    rows = (
        Row("BYOL", {}, 74.3),
        Row("SimCLR", {**SIMCLR, **negatives}, 69.3),
        Row("SimSiam", simsiam, 71.3),
        Row("MoCo v3", {**negatives, "alpha": 1.0}, 74.6),
        Row("BYOL' (align, towards the mean teacher)", {**aligned, "teacher": 0.5}),
        Row("RAFT (align, away from the mean teacher)", {**aligned, "teacher": -0.5}),
        Row("unsupervised Mean Teacher", NO_PREDICTOR, 0.2),
    )
    question = (
        "The method's relatives, each as its difference from BYOL: heads and objective, on the "
        "base's views, encoder, optimiser and scale of the loss (byol recipes has their own "
        "published settings)."
    )
    metric = (
        "ImageNet linear top-1 in %, ResNet-50, each method's own 1000 epochs (SimSiam 800, Mean "
        "Teacher 300)"
    )
    source = "the methods' papers and releases; table 5b for Mean Teacher"
    return Table("relatives", question, metric, source, rows, baseline="BYOL")
