"""The path of 45 logistic regressions beside scikit-learn's L-BFGS, in turns; one JSON line.

    python benchmarks/logistic.py                       50,000 x 512 features, 10 classes
    python benchmarks/logistic.py --images 5000 --rounds 3
    python benchmarks/logistic.py --features f.npz      what `byol embed` wrote

Both start each strength from the one before (scikit-learn: warm_start), in the same precision, on
the same number of threads, to the same targets. `gap` is how much lower (positive: ours) the
regularised mean loss is at the end, over the path: least and greatest.
"""

import argparse
import json
import os
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from byol.tasks.logistic import STRENGTHS, Regression, path


def drawn(n: int, dimensions: int, classes: int, noise: float, seed: int) -> tuple[Tensor, Tensor]:
    """Features like those of a network: rectified, on axes of very different length."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    mixing = torch.randn(64, dimensions, generator=generator) / 8
    turn = torch.linalg.qr(torch.randn(dimensions, dimensions, generator=generator)).Q
    length = torch.arange(1, dimensions + 1).float() ** -0.5
    centres = torch.randn(classes, 64, generator=generator) / noise
    inner = centres[labels] + torch.randn(n, 64, generator=generator)
    outer = (torch.randn(n, dimensions, generator=generator) * length) @ turn
    return (inner @ mixing + outer).relu(), labels


def ours(x: Tensor, y: Tensor, classes: int) -> list[Regression]:
    """The path of this package."""
    return [found for _, found in path(x, y, classes)]


def theirs(x: Tensor, y: Tensor, classes: int) -> list[Regression]:
    """The same path by scikit-learn, at its own tolerance."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=10_000, warm_start=True)
    found = []
    for strength in STRENGTHS:
        model.set_params(C=strength).fit(x.numpy(), y.numpy())
        weights, bias = (torch.from_numpy(v.copy()) for v in (model.coef_.T, model.intercept_))
        found.append(Regression(weights, bias))
    return found


def value(found: Regression, x: Tensor, y: Tensor, strength: float) -> float:
    """Regularised mean loss, in double precision."""
    scores = (x @ found.weights.to(x) + found.bias.to(x)).double()
    penalty = found.weights.double().square().sum() / (2 * strength * len(y))
    return float(F.cross_entropy(scores, y) + penalty)


def main() -> None:
    """Time both in turns, compare what they found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--noise", type=float, default=4.0, help="4: classes overlap; 2: hardly")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--features", help=".npz of byol embed in the place of drawn features")
    options = parser.parse_args()
    if options.features:
        held = np.load(options.features)
        x, y = torch.from_numpy(held["features"]), torch.from_numpy(held["labels"])
    else:
        size = (options.images, options.dimensions, options.classes)
        x, y = drawn(*size, options.noise, seed=0)
    classes = int(y.max()) + 1
    seconds: dict[str, list[float]] = {"ours": [], "scikit-learn": []}
    cpu: dict[str, list[float]] = {"ours": [], "scikit-learn": []}
    results: dict[str, list[Regression]] = {}
    for _ in range(options.rounds):
        for name, solve in (("ours", ours), ("scikit-learn", theirs)):
            started, started_cpu = time.perf_counter(), time.process_time()
            results[name] = solve(x, y, classes)
            seconds[name].append(round(time.perf_counter() - started, 2))
            cpu[name].append(round(time.process_time() - started_cpu, 2))
    gaps, shares = [], []
    pairs = zip(STRENGTHS, results["ours"], results["scikit-learn"], strict=True)
    for strength, mine, other in pairs:
        gaps.append(value(other, x, y, strength) - value(mine, x, y, strength))
        hits = [(r.scores(x.to(r.weights)).argmax(1) == y).float().mean() for r in (mine, other)]
        shares.append(100 * float(hits[0] - hits[1]))
    times = {"seconds": seconds, "cpu_seconds": cpu}
    line: dict[str, Any] = {
        "features": list(x.shape),
        "classes": classes,
        **times,
        "speed_up": round(min(seconds["scikit-learn"]) / min(seconds["ours"]), 2),
        "cpu_speed_up": round(min(cpu["scikit-learn"]) / min(cpu["ours"]), 2),
        "gap": [min(gaps), max(gaps)],
        "accuracy_difference": [min(shares), max(shares)],
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
