"""What a trained encoder is measured beside: the untrained one and raw pixels."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from byol.build import workers
from byol.config import Config
from byol.data.prepared import Prepared
from byol.data.source import Source
from byol.engine.processes import ALONE, Processes
from byol.tasks import features
from byol.tasks.extraction import collect
from byol.tasks.knn import knn, knn_pixels
from byol.tasks.linear import EpochFeatures, linear


def compare(
    config: Config,
    prepared: Prepared,
    trained: nn.Module,
    untrained: nn.Module,
    device: torch.device,
    say: Callable[[str], None],
    processes: Processes = ALONE,
) -> dict[str, dict[str, float]]:
    """kNN and linear accuracy of the trained encoder, the untrained one and raw pixels, in percent
    to two decimals.

    The untrained encoder's batch norms take the data's statistics first: a fairer opponent. All
    processes extract features, the main one measures; the others return nothing.
    """
    data, train = config.data, config.train
    geometry = (data.image_size, int(data.channels or 3), data.value_range or (0.0, 255.0))
    count = workers(config, processes)
    say(
        f"measuring kNN (k = {train.knn_k}) and linear probes: trained encoder, untrained encoder, "
        "raw pixels"
    )

    def stream(source: Source) -> Any:
        return features.stream(source, *geometry, count)

    features.calibrate(untrained, stream(features.drawn(prepared.bank, train.seed)))
    untrained = untrained.to(device).to(memory_format=torch.channels_last)
    rows: dict[str, tuple[Tensor, Tensor]] = {}
    for name, encoder in (("trained", trained), ("untrained", untrained)):
        (bank, bank_labels, _), (queries, labels, _) = (
            collect(encoder, source, geometry, count, device, processes)
            for source in (prepared.bank, prepared.queries)
        )
        rows[name] = (bank, queries)
    if not processes.is_main:
        return {}
    pixels = (features.pixels(stream(s)).to(device) for s in (prepared.bank, prepared.queries))
    rows["raw_pixels"] = (next(pixels), next(pixels))
    result: dict[str, dict[str, float]] = {"knn": {}, "linear": {}}
    for name, (bank, queries) in rows.items():
        neighbours = (train.knn_k, train.knn_temperature)
        vote = knn_pixels if name == "raw_pixels" else _top1
        top1 = vote(bank, bank_labels, queries, labels, prepared.classes, *neighbours)
        result["knn"][name] = round(top1, 2)
        if train.final_linear:
            probe = linear(_cached(bank), bank_labels, queries, labels, prepared.classes)
            result["linear"][name] = round(probe["top1"], 2)
    say_figures(result, say)
    return result


def say_figures(result: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """A line for each kind of accuracy that `compare` found, and what to do where it is low."""
    for kind, title in (("knn", "kNN"), ("linear", "linear probe")):
        if found := result.get(kind):
            values = "   ".join(f"{n.replace('_', ' ')} {v:.1f} %" for n, v in found.items())
            say(f"{title}: {values}")
    knn_of = result.get("knn")
    if knn_of and knn_of["trained"] <= max(knn_of["untrained"], knn_of["raw_pixels"]):
        say(
            "the trained encoder does not beat both the untrained one and pixels: train longer, "
            "look at views.png (what both views share is what is learned), or try another --preset"
        )


def _top1(*arguments: Any) -> float:
    return knn(*arguments)["top1"]


def _cached(rows: Tensor) -> EpochFeatures:
    return lambda epoch: rows
