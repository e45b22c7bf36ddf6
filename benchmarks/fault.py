"""Does a run whose processes are killed end by itself as if nothing had happened?

Runs `byol pretrain` on drawn pictures in files under torchrun once undisturbed, and once with
SIGKILL sent to one of its processes at random moments (every fourth one timed to fall into a
checkpoint being written); `torchrun --max-restarts` starts it again each time, nobody else does.
Compares the two encoders and looks for what was left behind: processes (data workers, too), locks,
unfinished files. Prints one JSON line; exit code 1 where they differ by more than 1e-6 or something
is left.

    python benchmarks/fault.py --kills 10 --processes 2 -- --epochs 40 --model convnet
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors.numpy import load_file

from byol.data.embedded import textures
from byol.engine.device import environment

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "fault.json"
MARK = f"BYOL_FAULT={uuid.uuid4().hex}"  # in the environment of every process of the runs


def draw(folder: Path, images: int = 300) -> str:
    """Pictures of two sizes, so that data workers read them again and again."""
    folder.mkdir()
    for i, picture in enumerate(textures(images, 0)[0]):
        side = 32 + i % 2
        Image.fromarray(picture).resize((side, side)).save(folder / f"{i}.png")
    return str(folder)


def launch(
    arguments: list[str], out: Path, processes: int, restarts: int
) -> "subprocess.Popen[bytes]":
    """torchrun with the command, a checkpoint every second."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(processes), "--max-restarts", str(restarts)]
    command += ["-m", "byol", "pretrain", *arguments, "--out", str(out)]
    command += ["--quiet", "--save-seconds", "1", "--workers", "1"]
    name, value = MARK.split("=")
    given = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), name: value}
    return subprocess.Popen(command, env={**os.environ, **given})


def workers(launcher: int) -> list[int]:
    """The processes of the run: children of torchrun that run byol."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    return [int(pid) for pid in children if b"\0byol\0" in _of(int(pid), "cmdline")]


def _of(pid: int, what: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except OSError:
        return b""


def left_behind(out: Path) -> list[str]:
    """Processes that still work on the run, and files that a finished one does not have."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    orphans = [f"process {pid}" for pid in pids if MARK.encode() in _of(pid, "environ")]
    files = [*out.rglob("*.tmp"), *out.rglob(".*.tmp"), *out.glob(".lock.holder")]
    return orphans + [str(path.relative_to(out)) for path in files]


def saved(out: Path) -> set[str]:
    """The checkpoints of a run."""
    return {path.name for path in (out / "checkpoints").glob("step-*.pt")}


def wait_for_save(out: Path, seconds: float) -> bool:
    """Whether an unfinished checkpoint file was seen within `seconds`."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if any((out / "checkpoints").glob(".*.tmp")):
            return True
        time.sleep(0.0005)
    return False


def disturb(
    launcher: "subprocess.Popen[bytes]", out: Path, kills: int, seconds: float, seed: int
) -> list[dict[str, int | bool]]:
    """Kill one process after another; each time the run has saved anew since the last."""
    choose = random.Random(seed)
    met: list[dict[str, int | bool]] = []
    while len(met) < kills and launcher.poll() is None:
        before = saved(out)
        while launcher.poll() is None and not saved(out) - before:
            time.sleep(0.01)
        time.sleep(choose.uniform(0, seconds))
        in_save = len(met) % 4 == 3 and wait_for_save(out, 20)
        if found := workers(launcher.pid):
            rank = 0 if in_save else choose.randrange(len(found))
            os.kill(found[rank], signal.SIGKILL)
            met.append({"rank": rank, "during_save": in_save})
    return met


def difference(one: Path, other: Path) -> float:
    """The largest difference of weights, as a share of the largest weight of each tensor."""
    a, b = (load_file(out / "encoder.safetensors") for out in (one, other))
    worst = 0.0
    for name, value in a.items():
        scale = max(float(abs(value).max()), 1e-30)
        worst = max(worst, float(abs(value - b[name]).max()) / scale)
    return worst


def main() -> int:
    """Compare; 0 if the encoders agree and nothing is left."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2, help="longest wait before a kill")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument("--write", action="store_true", help="write docs/results/fault.json")
    parser.add_argument("arguments", nargs="*", help="options of byol pretrain, after --")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        plain, killed = Path(scratch, "plain"), Path(scratch, "killed")
        arguments = [draw(Path(scratch, "files")), *options.arguments]
        began = time.monotonic()
        if launch(arguments, plain, options.processes, 0).wait():
            return 1
        middle = time.monotonic()
        run = launch(arguments, killed, options.processes, options.kills)
        met = disturb(run, killed, options.kills, options.seconds, options.seed)
        code = run.wait()
        time.sleep(2)  # in which data workers notice that their process is gone
        result: dict[str, Any] = {
            "exit_code": code,
            "processes": options.processes,
            "kills": len(met),
            "during_save": sum(bool(kill["during_save"]) for kill in met),
            "ranks": [kill["rank"] for kill in met],
            "seconds_undisturbed": round(middle - began),
            "seconds_killed": round(time.monotonic() - middle),
            "difference": None if code else difference(plain, killed),
            "left_behind": left_behind(killed),
        }
    print(json.dumps(result))
    if options.write:
        machine = {k: v for k, v in environment().items() if k != "command"}
        command = " ".join(["python benchmarks/fault.py", *sys.argv[1:]])
        table = {"environment": machine, "command": command, "result": result}
        RESULTS.write_text(json.dumps(table, indent=1) + "\n")
    good = code == 0 and len(met) == options.kills and not result["left_behind"]
    return 0 if good and difference_is_small(result["difference"]) else 1


def difference_is_small(value: object) -> bool:
    """Rounding aside the same."""
    return isinstance(value, float) and value <= 1e-6


if __name__ == "__main__":
    sys.exit(main())
