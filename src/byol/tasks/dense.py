"""What segmentation and depth share: the data, the networks compared, their training, a picture."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from byol.data.dense import (
    Cut,
    DenseBatch,
    Facts,
    PairReader,
    central_batches,
    training_batches,
    usable,
)
from byol.data.pairs import Kind, Pairs, choose, open_pairs
from byol.engine.device import autocast
from byol.engine.files import atomic_write
from byol.errors import UserError
from byol.networks.dense import DenseEncoder, DenseNetwork
from byol.protocols import Depth, Segment
from byol.tasks.features import calibrate
from byol.tasks.subject import Subject, untrained
from byol.tasks.training import train

SHOWN = 4  # images of a picture

Options = Segment | Depth
Say = Callable[[str], None]


@dataclass(frozen=True)
class Dense:
    """A protocol on its data: what every training of it has in common."""

    subject: Subject
    options: Options
    train: PairReader
    test: PairReader
    train_cut: Cut
    test_cut: Cut
    head: Callable[[int], nn.Module]  # channels of the maps to head
    loss: Callable[[Tensor, Tensor], Tensor]  # output (B, K, h, w) and maps (B, h, w) to a scalar
    change: Callable[[DenseBatch], Tensor]  # training batch to its images, with changed colours
    work: Path | None  # checkpoints go here


def open_dense(
    subject: Subject, data: Any, kind: Kind, facts: Facts, options: Options, say: Say
) -> tuple[PairReader, PairReader, int, list[str]]:
    """What is trained on, what is measured on, the largest number of `facts`, and the pairs left
    out with the reason. Raises UserError as open_pairs, choose and usable do."""
    if options.steps < 1 or options.batch_size < 1:
        raise UserError(
            f"steps is {options.steps} and batch_size {options.batch_size}; both must be 1 or more"
        )
    scale = options.depth_scale if isinstance(options, Depth) else 1
    parts = open_pairs(data, kind, scale)
    *both, choice = choose(parts, options.train_split, options.eval_split, options.seed)
    _, channels, value_range = subject.geometry
    fill = tuple(subject.encoder.mean.tolist())
    readers, largest = [], 0
    skipped: list[str] = []
    for pairs in both:
        assert isinstance(pairs, Pairs)
        reader = PairReader(pairs, channels, value_range, fill)
        good, numbers, bad = usable(reader, facts, subject.workers)
        readers.append(reader.of(good))
        largest, skipped = max(largest, *numbers), skipped + bad
    say(str(choice))
    if skipped:
        say(f"{len(skipped)} pairs are left out, such as {skipped[0]}")
    return readers[0], readers[1], largest, skipped


def starts(dense: Dense) -> Iterator[tuple[str, Subject, bool]]:
    """Each row of the result, the encoder that it starts from, and whether that stays frozen.

    "supervised" is the untrained network trained whole, "untrained" the same with its head trained
    alone, its norm statistics measured on the training images.
    """
    subject, options = dense.subject, dense.options
    yield subject.name, subject, options.frozen
    if not options.baselines:
        return
    yield "supervised", untrained(subject, options.seed), False
    fresh = untrained(subject, options.seed)
    calibrate(fresh.encoder, ((b.images, b.maps) for b in _central(dense, dense.train)))
    yield "untrained", fresh, True


def fitted(
    dense: Dense, row: str, start: Subject, frozen: bool, lr: float, reader: PairReader
) -> DenseNetwork:
    """A network that begins at `start`, trained on `reader` at the peak rate `lr`: SGD of momentum
    0.9, the rate divided by 10 at 70 % and 90 % of the steps."""
    options, subject = dense.options, dense.subject
    network = _network(dense, start, frozen)
    weights = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(weights, lr, momentum=0.9, weight_decay=options.weight_decay)

    def batches(step: int) -> Iterator[DenseBatch]:
        yield from training_batches(
            reader, dense.train_cut, options.batch_size, options.seed, step, options.steps,
            subject.workers, subject.device,
        )  # fmt: skip

    def loss(batch: DenseBatch) -> Tensor:
        with autocast(subject.device, subject.precision):
            output = network(dense.change(batch))
        return dense.loss(output.float(), batch.maps)

    network.train()
    folder = dense.work and dense.work / row / f"{lr:g}-{len(reader.pairs)}"
    title = f"{row}, lr {lr:g}"
    train(
        network, optimizer, batches, loss, lambda step: rate(step / options.steps), options.steps,
        options.batch_size, title, folder,
    )  # fmt: skip
    return network.eval()


def rate(done: float) -> float:
    """Factor of the learning rate when a share `done` of the steps is done."""
    return 1.0 if done < 0.7 else 0.1 if done < 0.9 else 0.01


@torch.no_grad()
def outputs(
    dense: Dense, network: DenseNetwork, reader: PairReader
) -> Iterator[tuple[DenseBatch, Tensor]]:
    """Batches of central crops and the network's output (B, K, h, w) float32."""
    for batch in _central(dense, reader):
        with autocast(dense.subject.device, dense.subject.precision):
            output = network(batch.images)
        yield batch, output.float()


def _central(dense: Dense, reader: PairReader) -> Iterator[DenseBatch]:
    size, subject = min(16, dense.options.batch_size), dense.subject
    return central_batches(reader, dense.test_cut, size, subject.workers, subject.device)


def shown(dense: Dense) -> PairReader:
    """Some of the pairs to measure on, evenly spaced, for a picture."""
    n = len(dense.test.pairs)
    places = np.linspace(0, n - 1, min(n, SHOWN)).round().astype(int).tolist()
    return dense.test.of(dense.test.pairs.take(places))


def _network(dense: Dense, start: Subject, frozen: bool) -> DenseNetwork:
    """Its head is drawn from the seed, the same one for every row."""
    dilate = isinstance(dense.options, Segment)
    encoder = DenseEncoder(start.encoder, dense.train_cut.size, dilate)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(dense.options.seed)
        head = dense.head(encoder.channels)
    network = DenseNetwork(encoder, head, frozen).to(dense.subject.device)
    return network.to(memory_format=torch.channels_last)


def draw_picture(columns: dict[str, list[np.ndarray]], path: Path, legend: dict[str, Any]) -> None:
    """Columns of pictures (H, W, 3) in [0, 1] under their titles, and colours with their names."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import Patch

    rows = len(next(iter(columns.values())))
    size = (2.6 * len(columns), 2.2 * rows + 0.6)
    figure, axes = plt.subplots(rows, len(columns), figsize=size, squeeze=False)
    for place, (title, pictures) in enumerate(columns.items()):
        axes[0, place].set_title(title)
        for row, picture in enumerate(pictures):
            axes[row, place].imshow(picture)
            axes[row, place].set_axis_off()
    if legend:
        patches = [Patch(color=colour, label=name) for name, colour in legend.items()]
        figure.legend(handles=patches, loc="lower center", ncols=min(6, len(patches)), fontsize=8)
    figure.tight_layout(rect=(0, 0.04 + 0.03 * (len(legend) / 6) if legend else 0, 1, 1))
    data = BytesIO()
    figure.savefig(data, dpi=100)
    plt.close(figure)
    atomic_write(path, data.getvalue())


def as_picture(image: Tensor) -> np.ndarray:
    """(C, H, W) in [0, 1] to (H, W, 3); of other than 3 channels the first as grey."""
    shown = image if len(image) == 3 else image[:1].expand(3, -1, -1)
    return shown.permute(1, 2, 0).cpu().numpy()
