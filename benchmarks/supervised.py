"""What labels would have given: the encoder of a run, trained from scratch on the same images.

The same network, batch size and crops (random resized crop and flip, no colour operations), with a
linear classifier on top, SGD with Nesterov momentum 0.9, weight decay 5e-4, cosine from the given
rate to 0 over the given time. Prints one JSON line.

    python benchmarks/supervised.py runs/cifar cifar10/ --seconds 1500
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch
import yaml
from torch import nn
from torch.nn import functional as F

from byol import api, metrics, ops, rng
from byol.config import Config, from_dict
from byol.data.prepared import prepare
from byol.data.source import open_splits
from byol.engine import device as devices
from byol.tasks import features as extraction
from byol.tasks.knn import knn


def images(config: Config, source: api.Source) -> object:
    """Batches of a source as the encoder takes them."""
    data = config.data
    values, channels = data.value_range or (0, 255), int(data.channels or 3)
    return extraction.stream(source, data.image_size, channels, values, 0)


def main() -> None:
    """Train for the time given, then measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("data")
    parser.add_argument("--seconds", type=float, required=True, help="of processor time")
    parser.add_argument("--lr", type=float, default=0.1)
    options = parser.parse_args()
    plain = yaml.safe_load((options.run / "config.yaml").read_text())
    config = from_dict(plain)
    device = devices.pick_device(config.train.device)
    prepared = prepare(open_splits(options.data), config.train.seed)
    encoder = api.build_learner(config).encoder.to(device, memory_format=torch.channels_last)
    classifier = nn.Linear(encoder.num_features, prepared.classes).to(device)
    network = nn.Sequential(encoder, classifier)
    optimizer = torch.optim.SGD(
        network.parameters(), options.lr, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    loader = api.build_loader(config, prepared.train, device)
    began, step, progress = time.process_time(), 0, 0.0
    for batch in loader.batches(0, 10**9):
        progress = (time.process_time() - began) / options.seconds
        if progress >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = options.lr * (1 + math.cos(math.pi * progress)) / 2
        flip = torch.from_numpy(rng.uniforms(1, 9, batch.epoch, batch.index, 1)[:, 0] < 0.5)
        crops = ops.horizontal_flip(batch.crops[:, 0].float() / 255, flip.to(device))
        with devices.autocast(device, config.train.precision):
            scores = network(crops.contiguous(memory_format=torch.channels_last))
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(scores.float(), batch.labels).backward()
        optimizer.step()
        step += 1
        if step % 200 == 0:
            print(f"step {step}, {progress:.0%} of the time", flush=True)
    bank, bank_labels = extraction.features(encoder, images(config, prepared.bank), device)
    queries, labels = extraction.features(encoder, images(config, prepared.queries), device)
    with torch.no_grad():
        top1 = metrics.accuracy(classifier(queries), labels)
    k, temperature = config.train.knn_k, config.train.knn_temperature
    votes = knn(bank, bank_labels, queries, labels, prepared.classes, k, temperature)
    epochs = step * config.optim.batch_size / len(prepared.train)
    result = {"top1": top1, "knn": votes["top1"], "epochs": epochs, "seconds": options.seconds}
    print(json.dumps({key: round(value, 2) for key, value in result.items()}))


if __name__ == "__main__":
    main()
