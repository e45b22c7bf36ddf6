"""What a peer does, timed inside an environment of its own; nothing of byol is imported here.

`python peer_tasks.py PEER THREADS` reads a request a line, {"task": [kind, {...}], "repeats": n},
and answers with a line: {"cpu": seconds, "wall": seconds} for one unit of the task (an image, a
step), or {"error": why}. benchmarks/peers.py makes the environment and asks. Kinds are the methods
of `Tasks`; what each peer does for them stands in
peer_loops.py and peer_lightning.py.
"""

import importlib
import inspect
import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import numpy as np
import torch
from peer_lightning import SoloLearn, StablePretraining
from peer_loops import ByolPytorch, Lightly
from PIL import Image
from torch.utils.data import DataLoader, Dataset, RandomSampler

PEERS: dict[str, Callable[[], Any]] = {
    "lightly": Lightly,
    "byol-pytorch": ByolPytorch,
    "stable-pretraining": StablePretraining,
    "solo-learn": SoloLearn,
}
Work = Callable[[], int]  # does it once; the units that were done


def spent() -> float:
    """Processor seconds of this process and of its children that have ended."""
    own, ended = (resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime


def autocast(precision: str) -> AbstractContextManager[object]:
    """bf16 or nothing."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.autocast(device, torch.bfloat16) if precision == "bf16" else nullcontext()


class Tasks:
    """Each returns the work; what is built for it is not timed."""

    def __init__(self, peer: Any) -> None:
        self.peer = peer
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def photos(self, files: list[str], size: int) -> Work:
        """Both views of each photograph, from its file."""
        views = self.peer.views(size)

        def work() -> int:
            for file in files:
                views(Image.open(file).convert("RGB"))
            return len(files)

        return work

    def small(self, file: str) -> Work:
        """Both views of each image of an array (N, S, S, 3) uint8 that lies in memory."""
        pixels = np.load(file)
        of_batch = getattr(self.peer, "batch_views", None)
        if of_batch:
            both = of_batch(pixels.shape[1])
            images = torch.from_numpy(pixels).permute(0, 3, 1, 2)

            def together() -> int:
                both(images.float() / 255)
                return len(pixels)

            return together
        views = self.peer.views(pixels.shape[1])

        def work() -> int:
            for image in pixels:
                views(Image.fromarray(image))
            return len(pixels)

        return work

    def step(self, network: str, size: int, batch: int, setting: str) -> Work:
        """A training step from two views on; setting: fp32, bf16 or shipped."""
        shipped = setting == "shipped"
        loop = self.peer.loop(network, size, shipped, given=True).to(self.device)
        precision = self.peer.precision if shipped else setting
        view1, view2 = torch.randn(2, batch, 3, size, size, device=self.device)
        labels = torch.zeros(batch, dtype=torch.int64, device=self.device)

        def work() -> int:
            loop.step(view1, view2, labels, autocast(precision))
            return 1

        return work

    def train(
        self, folder: str, network: str, size: int, batch: int, workers: int, steps: int
    ) -> Work:
        """Steps from image files on, all as shipped. As many batches as are used are read."""
        loop = self.peer.loop(network, size, True, given=False).to(self.device)
        images: Dataset[Any] = self.peer.dataset(folder, size)

        def batches() -> Iterator[Any]:
            order = RandomSampler(images, num_samples=steps * batch)  # type: ignore[arg-type]
            options: dict[str, Any] = {"sampler": order, "drop_last": True, "num_workers": workers}
            return iter(DataLoader(images, batch, **options))

        def work() -> int:
            for given in batches():
                view1, view2, labels = (x.to(self.device) for x in self.peer.unpack(given))
                loop.step(view1, view2, labels, autocast(self.peer.precision))
            return steps

        return work


@cache
def peer_of(name: str) -> Any:
    return PEERS[name]()


def notes(name: str) -> dict[str, list[str]]:
    """What the peer does otherwise, by part, each looked up in its installed source."""
    found: dict[str, list[str]] = {"views": [], "step": []}
    for part, sentence, module, pattern in peer_of(name).notes:
        source = inspect.getsource(importlib.import_module(module))
        missing = "" if re.search(pattern, source) else " (not found in this version's source)"
        found[part].append(f"{name} {sentence}{missing}")
    return found


def timed(work: Work, repeats: int) -> dict[str, float]:
    """Seconds a unit."""
    cpu, wall, units = spent(), time.perf_counter(), 0
    for _ in range(repeats):
        units += work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return {"cpu": (spent() - cpu) / units, "wall": (time.perf_counter() - wall) / units}


def serve(name: str, lines: Iterator[str], answer: Callable[[Any], None]) -> None:
    """Answer every line; the work of the last task is kept, that of an earlier one is let go."""
    kept, work = "", None
    for line in lines:
        request = json.loads(line)
        try:
            if request["task"] == "notes":
                answer({"notes": notes(name)})
                continue
            if request["task"] == "memory":
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                answer({"gb": peak * 1024 / 1e9})
                continue
            if kept != (asked := json.dumps(request["task"])):
                work = None  # frees its memory first
                torch.manual_seed(0)
                kind, options = request["task"]
                work, kept = getattr(Tasks(peer_of(name)), kind)(**options), asked
            assert work is not None
            answer(timed(work, request["repeats"]))
        except Exception as error:  # the parent decides what becomes of it
            kept = ""
            reason = " ".join(str(error).split())
            answer({"error": f"{type(error).__name__}: {reason}"[:300]})


def main() -> None:
    """Answers go to the real standard output, which libraries that print do not get to see."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(int(sys.argv[2]))

    def answer(content: Any) -> None:
        out.write(json.dumps(content) + "\n")
        out.flush()

    serve(sys.argv[1], iter(sys.stdin.readline, ""), answer)


if __name__ == "__main__":
    main()
