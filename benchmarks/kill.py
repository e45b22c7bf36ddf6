"""Does a run that is killed again and again end as if nothing had happened?

Runs `byol pretrain` once without interruption and once with SIGKILL at random moments (every
fourth one timed to fall into a checkpoint being written), started again with the same command each
time, and compares the two encoders byte for byte. Prints one JSON line; exit code 1 if they differ.

    python benchmarks/kill.py --kills 20 -- cifar10/ --epochs 4 --model convnet
"""

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from byol.engine.device import environment

HOME = Path(__file__).parent.parent / "docs" / "results"


def start(arguments: list[str], out: Path) -> subprocess.Popen[bytes]:
    """The command, writing to `out`, with a checkpoint every few seconds."""
    command = [sys.executable, "-m", "byol", "pretrain", *arguments, "--out", str(out)]
    return subprocess.Popen([*command, "--quiet", "--save-seconds", "5"])


def steps_done(out: Path) -> int:
    """Step of the newest checkpoint, 0 without one."""
    names = [path.name for path in (out / "checkpoints").glob("step-*.pt")]
    return max((int(name.split("-")[1]) for name in names), default=0)


def digest(out: Path) -> str:
    """SHA-256 of the exported encoder."""
    return hashlib.sha256((out / "encoder.safetensors").read_bytes()).hexdigest()


def wait_for_save(out: Path, process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether an unfinished checkpoint file was seen within `seconds`."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        if any((out / "checkpoints").glob(".*.tmp")):
            return True
        time.sleep(0.0005)
    return False


def kill_and_resume(
    arguments: list[str], out: Path, kills: int, seconds: float, seed: int
) -> list[dict[str, float | bool]]:
    """Run to the end, killed `kills` times on the way; what each kill met."""
    choose = random.Random(seed)
    met: list[dict[str, float | bool]] = []
    while True:
        process = start(arguments, out)
        if len(met) == kills:
            if process.wait():
                sys.exit(f"the run failed with exit code {process.returncode}")
            return met
        before = steps_done(out)
        # Far enough to save once, so that the run gets on between kills.
        while process.poll() is None and steps_done(out) == before:
            time.sleep(0.01)
        time.sleep(choose.uniform(0, seconds))
        in_save = len(met) % 4 == 3 and wait_for_save(out, process, 20)
        if process.poll() is not None:
            sys.exit(f"the run ended before kill {len(met) + 1} of {kills}: take more epochs")
        process.kill()
        process.wait()
        met.append({"step": steps_done(out), "during_save": in_save})


def main() -> int:
    """Compare; 0 if the encoders are equal."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=4, help="longest wait before a kill")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument("--write", action="store_true", help="write docs/results/kill.json")
    parser.add_argument("arguments", nargs="*", help="arguments of byol pretrain, after --")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        plain, killed = Path(scratch, "plain"), Path(scratch, "killed")
        began = time.monotonic()
        if start(options.arguments, plain).wait():
            return 1
        seconds = time.monotonic() - began
        met = kill_and_resume(
            options.arguments, killed, options.kills, options.seconds, options.seed
        )
        equal = digest(plain) == digest(killed)
        result = {
            "equal": equal,
            "kills": len(met),
            "during_save": sum(bool(kill["during_save"]) for kill in met),
            "seconds_uninterrupted": round(seconds, 1),
            "steps_at_kills": [kill["step"] for kill in met],
            "sha256": digest(killed),
        }
        print(json.dumps(result))
        if options.write:
            machine = {k: v for k, v in environment().items() if k != "command"}
            names = " ".join(
                ["$BYOL_DATA/cifar10/" + Path(options.arguments[0]).name, *options.arguments[1:]]
            )
            command = f"python benchmarks/kill.py --kills {options.kills} --write -- {names}"
            table = {"environment": machine, "command": command, "result": result}
            Path(HOME / "kill.json").write_text(json.dumps(table, indent=1) + "\n")
        return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
