"""From a configuration to what a run is made of: networks, loader, monitor."""

from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import nn

from byol import rng
from byol.config import Config, head_norms
from byol.data.loader import Share
from byol.data.loading import open_loader
from byol.data.prepared import Prepared
from byol.data.source import Source
from byol.engine import device as devices
from byol.engine.fit import Loader
from byol.engine.processes import ALONE, Processes
from byol.learner import Byol
from byol.monitor import Held, Monitor
from byol.networks.convnet import init_official_
from byol.networks.encoder import Encoder, build_encoder
from byol.networks.heads import ClosedForm, mlp
from byol.networks.norm import norm_layer
from byol.networks.standardised import StandardisedLinear
from byol.networks.unseen import zero_unseen_
from byol.objective import Objective
from byol.tasks import features as extraction

LIVE_BYTES = 3e8  # of images that the monitor keeps
LIVE_BANK, LIVE_QUERIES = 5000, 2000  # at most, while training; the final numbers take all


def build_learner(config: Config, module: nn.Module | None = None) -> Byol:
    """The two networks of a configuration, freshly initialised from its seed."""
    torch.manual_seed(config.train.seed)
    network, data = config.network, config.data
    projector_norm, predictor_norm = head_norms(network)

    def head(d_in: int, hidden: int, depth: int, kind: str, output_norm: bool = False) -> nn.Module:
        norm = norm_layer(kind, False, network.reference, network.norm_images)
        linear = StandardisedLinear if kind == "group-ws" else nn.Linear
        module = mlp(d_in, hidden, network.projection_size, depth, norm, linear, output_norm)
        if network.reference:
            init_official_(module)
        return module

    def branch(given: nn.Module | None) -> tuple[Encoder, nn.Module]:
        backbone = given or build_encoder(
            network.model,
            in_chans=int(data.channels or 3),
            stem=network.stem,
            reference=network.reference,
            zero_gamma=network.zero_gamma,
            image_size=data.image_size,
            norm=network.norm,
            norm_images=network.norm_images if network.norm == "batch" else None,
        )
        if network.zero_unseen:
            zero_unseen_(backbone, int(data.channels or 3), data.image_size)
        known = isinstance(getattr(backbone, "num_features", None), int)
        size = None if known else data.image_size
        encoder = Encoder(backbone, data.mean or (), data.std or (), size)
        hidden, depth = network.hidden_size, network.projector_depth
        features, output_norm = int(encoder.num_features), network.projector_output_norm
        return encoder, head(features, hidden, depth, projector_norm, output_norm)

    objective = Objective(**{f.name: getattr(config.objective, f.name) for f in fields(Objective)})
    encoder, projector = branch(module)
    predictor: nn.Module = ClosedForm(network.ridge)
    if network.predictor == "mlp":
        hidden = network.predictor_hidden_size or network.hidden_size
        predictor = head(network.projection_size, hidden, network.predictor_depth, predictor_norm)
    is_second = objective.target == "average" and network.independent_target and module is None
    target_encoder, target_projector = branch(None) if is_second else (None, None)
    return Byol(encoder, projector, predictor, target_encoder, target_projector, objective)


def build_loader(
    config: Config, source: Source, device: torch.device, processes: Processes = ALONE
) -> Loader:
    """Resident for same-size sets that fit in memory, workers for everything else; it reads this
    process's share of each batch."""
    data = config.data
    return open_loader(
        source,
        (config.view1, config.view2),
        size=data.image_size,
        channels=int(data.channels or 3),
        value_range=data.value_range or (0, 255),
        batch_size=config.optim.batch_size,
        seed=config.train.seed,
        workers=workers(config, processes),
        device=device,
        rule=data.crop_rule,
        antialias=data.antialias,
        bad_share=data.bad_share,
        at_least=2 * data.image_size if data.jpeg_scale == "reduced" else None,
        share=Share(processes.rank, processes.world, config.optim.accumulation),
        local_world=processes.local_world,
    )


def workers(config: Config, processes: Processes = ALONE) -> int:
    """Processes that read files for this one: as asked, else one a core but one, 8 at most; the
    processes of a machine share its cores."""
    if config.data.workers is not None:
        return config.data.workers
    return min(8, max(1, devices.cores() // processes.local_world - 1))


def build_monitor(
    config: Config, prepared: Prepared, learner: Byol, device: torch.device
) -> Monitor:
    """A monitor on as many held images as LIVE_BYTES allow."""
    data = config.data
    bytes_each = int(data.channels or 3) * data.image_size**2
    most = max(64, int(LIVE_BYTES / bytes_each) // 2)

    def held(source: Source, limit: int, stream: int) -> Held:
        at = np.sort(rng.some((config.train.seed, stream), len(source), min(limit, most))).tolist()
        values, channels = data.value_range or (0, 255), int(data.channels or 3)
        return extraction.hold(source, data.image_size, channels, values, workers(config), at)

    queries = held(prepared.queries, LIVE_QUERIES, 1)
    bank = held(prepared.bank, LIVE_BANK, 2) if prepared.classes else queries
    features = learner.encoder.num_features
    return Monitor(
        bank,
        queries,
        prepared.classes,
        int(features),  # type: ignore[arg-type]
        device,
        config.train.knn_k,
        config.train.knn_temperature,
    )


def describe(config: Config) -> dict[str, Any]:
    """What encoder.json says besides the weights' own facts."""
    network, data = config.network, config.data
    return {
        "model": network.model,
        "in_chans": data.channels,
        "stem": network.stem,
        "reference": network.reference,
        "zero_gamma": network.zero_gamma,
        "norm": network.norm,
        "norm_images": network.norm_images if network.norm == "batch" else None,
        "image_size": data.image_size,
        "value_range": list(data.value_range or (0, 255)),
    }
