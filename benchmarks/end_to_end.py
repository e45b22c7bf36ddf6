"""Training from image files on, as shipped, beside other packages; and whether speed cost anything.

    python -m benchmarks.end_to_end [--steps 24] [--workers 1] [--quick]
    python -m benchmarks.end_to_end --literal 4 [--images 4000] [--model convnet] [--seeds 2]

Everybody reads the same folder of PNG files (CIFAR-10, 10,000 images) with the same workers and
trains the same network with the same batch; views, heads, optimizer and precision are each one's
own. A turn is so many steps, its loader's start included. --literal trains so many epochs by the
fast path and by a loop that is written for reading (benchmarks/literal.py), and compares their kNN.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks import ours, pictures
from benchmarks.against_peers import able, has_bf16, notes_of, precisions
from benchmarks.bars import picture
from benchmarks.literal import compare
from benchmarks.peers import Elsewhere, workers
from benchmarks.timing import Competitor, publish, race
from byol.engine.device import cores, pick_device
from byol.engine.memory import keep_freed

SIZE, NETWORK = 32, "resnet18"
ASK_FOR_BF16 = ("stable-pretraining",)
EMULATED = "its scripts ask for bf16, which this processor would emulate"


def against_peers(options: argparse.Namespace) -> None:
    """Tables, docs/results/speed/peers-end-to-end.json and docs/performance/end-to-end.png."""
    if pick_device("auto").type == "cpu":
        keep_freed()
    with workers() as peers, tempfile.TemporaryDirectory() as home:
        folder = pictures.folder_of(Path(home), options.images)
        asked = {"network": NETWORK, "size": SIZE, "batch": options.batch}
        asked |= {"workers": options.workers, "steps": options.steps}
        own, setup = ours.train(folder, **asked)
        notes = notes_of(peers, "views") + notes_of(peers, "step") + precisions("shipped")
        others: dict[str, Competitor] = {
            name: Elsewhere(worker, "train", folder=str(folder), **asked)
            for name, worker in peers.items()
            if has_bf16() or name not in ASK_FOR_BF16
        }
        if not has_bf16():
            notes += [f"{name} is left out here: {EMULATED}" for name in ASK_FOR_BF16]
        able_ones = able({"byol": own, **others}, notes)
        found = race(able_ones, options.rounds, seconds=0, warm=True)
    rates = {who: 1000 * options.batch / timing.wall[1] for who, timing in found.items()}
    notes += [
        "images/s on the clock: " + ", ".join(f"{who} {rate:.0f}" for who, rate in rates.items()),
        f"before its first step byol measures and decodes all {options.images} files, once: "
        f"{setup:.1f} seconds that are not in the table; the others decode them in every epoch",
    ]
    publish(
        "peers-end-to-end",
        f"From files to the end of a step, {NETWORK}, {SIZE} pixels, batch {options.batch}, "
        f"{options.workers} workers, {pictures.SOURCE}",
        found,
        per="step",
        base="byol",
        command=" ".join(["python -m benchmarks.end_to_end", *sys.argv[1:]]),
        notes=notes,
        more={"images_per_second": rates, "setup_seconds": setup},
    )
    picture("end-to-end", ["peers-end-to-end"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=24, help="steps of a turn")
    parser.add_argument("--workers", type=int, default=cores() - 1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="8 steps a turn, 2,000 images")
    parser.add_argument("--literal", type=float, metavar="EPOCHS", help="compare with a slow loop")
    parser.add_argument("--model", default="convnet", help="of --literal")
    parser.add_argument("--seeds", type=int, default=2, help="of --literal")
    options = parser.parse_args()
    if options.quick:
        options.steps, options.images = 8, min(options.images, 2000)
    if options.literal:
        compare(options.literal, options.images, options.model, options.seeds, options.batch)
    else:
        against_peers(options)


if __name__ == "__main__":
    main()
