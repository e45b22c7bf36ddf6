"""Convolutions over the last maps of small images: torch's and ours (byol/networks/smallmaps.py).

    python -m benchmarks.smallmaps [--rounds 5]

Forward and backward of one layer at batch 256, in fp32 and, where the processor has it, bf16.
"""

import argparse
import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.timing import Timing, here, publish, race
from byol.engine.device import autocast, pick_device, pick_precision
from byol.engine.memory import keep_freed
from byol.networks.smallmaps import speed_small_maps_

BATCH = 256
LAYERS = (  # channels in and out, taps, stride, pixels of a side
    (512, 512, 3, 1, 1),
    (256, 512, 3, 2, 2),
    (256, 256, 3, 1, 2),
    (1024, 256, 1, 1, 2),
    (256, 1024, 1, 1, 4),
)


def working(conv: nn.Conv2d, x: Tensor, precision: str) -> Callable[[], None]:
    """A forward and a backward pass."""

    def work() -> None:
        with autocast(x.device, precision):
            out = conv(x)
        out.backward(torch.ones_like(out))

    return work


def main() -> None:
    """A table and docs/results/speed/smallmaps.json."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    keep_freed()
    timings: dict[str, Timing] = {}
    ratios: dict[str, float] = {}
    for precision in ("fp32", *["bf16"] * (pick_precision(pick_device("cpu")) == "bf16")):
        for c_in, c_out, taps, stride, side in LAYERS:
            kind = f"{taps}x{taps}{'/2' if stride == 2 else ''}, {c_in} to {c_out} channels"
            name = f"{kind}, {side} x {side} pixels, {precision}"
            plain = nn.Conv2d(c_in, c_out, taps, stride, taps // 2, bias=False)
            ours = copy.deepcopy(plain)
            speed_small_maps_(ours)
            x = torch.randn(BATCH, c_in, side, side, requires_grad=True)
            ways = {f"{name}: torch": plain, f"{name}: ours": ours}
            last = torch.channels_last
            found = race(
                {
                    way: here(working(conv.to(memory_format=last), x, precision))
                    for way, conv in ways.items()
                },
                rounds,
            )
            timings |= found
            before, now = (timing.cpu[1] for timing in found.values())
            ratios[name] = now / before
    publish(
        "smallmaps",
        f"Forward and backward of a convolution at batch {BATCH}",
        timings,
        per="call",
        base=next(iter(timings)),
        command="python -m benchmarks.smallmaps",
        notes=[f"{name}: {ratio:.2f} times torch's" for name, ratio in ratios.items()],
        more={"ratio_to_floor": ratios},
    )


if __name__ == "__main__":
    main()
