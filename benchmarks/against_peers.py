"""Views and training steps beside other packages, all in turns, in one tree of processes.

    python -m benchmarks.against_peers [--only views step] [--quick]

Everybody gets the same files or the same two views, network, batch, threads and device. A step is
timed at equal precision (fp32, then bf16 autocast; heads of 4096 and 256) and as shipped (each
one's own precision and heads). Optimizers are those of each one's documentation. The floor is the
bare decoding of the photographs, and the bare convolutions and matrix products of the step.
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import simplejpeg
import torch

from benchmarks import ours, pictures
from benchmarks.bars import picture
from benchmarks.peers import Elsewhere, PeerError, Worker, workers
from benchmarks.timing import Competitor, here, publish, race
from byol.engine.device import pick_device, pick_precision
from byol.engine.memory import keep_freed

PHOTOS, SMALL = 16, 256  # images a call
STEPS = (("resnet18", 32, 256), ("resnet50", 224, 16))
SETTINGS = ("fp32", "bf16", "shipped")
COMMAND = "python -m benchmarks.against_peers"


def able(competitors: Mapping[str, Competitor], notes: list[str]) -> dict[str, Competitor]:
    """Those that can do the task; the others are noted with their reason."""
    kept = {}
    for name, competitor in competitors.items():
        try:
            competitor(1)
            kept[name] = competitor
        except PeerError as error:
            notes.append(f"{name} is left out here: {error}")
    return kept


def notes_of(peers: Mapping[str, Worker], kind: str) -> list[str]:
    """What each peer does otherwise in its views or its step, looked up in its source."""
    return [note for worker in peers.values() for note in worker.ask(task="notes")["notes"][kind]]


def decoding(files: list[Path]) -> Competitor:
    """The floor of the photographs: their bytes decoded, once each."""
    read = [file.read_bytes() for file in files]
    return here(lambda: [simplejpeg.decode_jpeg(data) for data in read], len(read))


def views(peers: Mapping[str, Worker], rounds: int, folder: Path) -> None:
    """Both views of a photograph at 224 pixels, and of an image of 32."""
    (folder / "photos").mkdir()
    notes = notes_of(peers, "views")
    files = pictures.photographs(folder / "photos", PHOTOS)
    options = {"files": [str(file) for file in files], "size": 224}
    own = here(ours.photos(folder / "photos", PHOTOS, 224), PHOTOS)
    said = list(notes)
    others = {name: Elsewhere(worker, "photos", **options) for name, worker in peers.items()}
    found = race(
        able({"byol": own, "bare decoding": decoding(files), **others}, said), rounds, warm=True
    )
    size = round(sum(file.stat().st_size for file in files) / len(files) / 1000)
    title = f"Both views at 224 pixels of a JPEG of 500 x 375 and {size} KB"
    publish("peers-views-224", title, found, per="image", base="byol", command=COMMAND, notes=said)
    pixels, _ = pictures.small(SMALL)
    np.save(folder / "small.npy", pixels)
    said = list(notes)
    file = str(folder / "small.npy")
    others = {name: Elsewhere(worker, "small", file=file) for name, worker in peers.items()}
    own = here(ours.small(pixels, SMALL), SMALL)
    found = race(able({"byol": own, **others}, said), rounds, warm=True)
    title = f"Both views of an image of 32 pixels that lies in memory ({pictures.SOURCE})"
    publish("peers-views-32", title, found, per="image", base="byol", command=COMMAND, notes=said)


def steps(peers: Mapping[str, Worker], rounds: int, quick: bool, networks: Sequence[str]) -> None:
    """A training step of each network in each setting; the large one has half the rounds."""
    notes = notes_of(peers, "step")
    possible = SETTINGS if has_bf16() else SETTINGS[:1]
    if len(possible) == 1:
        print(
            "fp32 alone: this processor has no bf16, which defaults that ask for it would emulate"
        )
    for network, size, batch in (s for s in STEPS if s[0] in networks):
        turns = rounds if size <= 64 else max(2, rounds // 2)
        for setting in possible[-1:] if quick and size > 64 else possible:
            options = {"network": network, "size": size, "batch": batch, "setting": setting}
            said = list(notes)
            others = {name: Elsewhere(peers[name], "step", **options) for name in peers}
            own, bare = (here(work) for work in ours.step(network, size, batch, setting))
            everyone: dict[str, Competitor] = {"byol": own, "floor of byol's step": bare, **others}
            found = race(able(everyone, said), turns, seconds=0, warm=True)
            kind = "as shipped" if setting == "shipped" else setting
            publish(
                f"peers-step-{network}-{setting}",
                f"Training step, {network}, {size} pixels, batch {batch}, {kind}",
                found,
                per="step",
                base="byol",
                command=COMMAND,
                notes=[*said, *precisions(setting)],
            )


def has_bf16() -> bool:
    """Whether the hardware computes with it; emulated, its figures would mean nothing."""
    return pick_precision(pick_device("auto")) == "bf16"


def precisions(setting: str) -> list[str]:
    """What "as shipped" means for each."""
    if setting != "shipped":
        return []
    chosen = ours.configuration("resnet18", 32, 256, "shipped").train.precision
    return [
        f"as shipped, byol chooses {chosen} on this machine, stable-pretraining's scripts ask for "
        "16-mixed (bf16 on a CPU), the others leave fp32; hidden units of projector and predictor "
        "are each one's own",
    ]


def main() -> None:
    """Tables, docs/results/speed/peers-*.json and docs/performance/peers.png."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=("views", "step"), default=["views", "step"])
    every = [network for network, *_ in STEPS]
    parser.add_argument("--networks", nargs="+", choices=every, default=every)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="fewer rounds; ResNet-50 as shipped")
    options = parser.parse_args()
    rounds = 3 if options.quick else options.rounds
    if not torch.cuda.is_available():
        keep_freed()
    print(f"{torch.get_num_threads()} threads", flush=True)
    with workers() as peers, tempfile.TemporaryDirectory() as folder:
        if "views" in options.only:
            views(peers, rounds, Path(folder))
        if "step" in options.only:
            steps(peers, rounds, options.quick, options.networks)
    names = ["peers-views-224", "peers-views-32"]
    names += [f"peers-step-{network}-{s}" for network, *_ in STEPS for s in SETTINGS]
    picture("peers", names)


if __name__ == "__main__":
    main()
