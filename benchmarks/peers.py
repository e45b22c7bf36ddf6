"""The other packages, in an environment of their own that is made from PyPI and found again.

    with workers(say=print) as peers:          # {"lightly": Worker, ...}, those that install
        found = race({"byol": here(...), "lightly": Elsewhere(peers["lightly"], task)})

Each peer is a process that waits while the others are timed. Its tasks: benchmarks/peer_tasks.py.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision
from filelock import FileLock

from benchmarks.timing import Cost

TASKS = Path(__file__).parent / "peer_tasks.py"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "byol" / "peers"
# Arguments of pip, one call after another.
PEERS: dict[str, list[list[str]]] = {
    "lightly": [["lightly"]],
    "byol-pytorch": [["byol-pytorch"]],
    "stable-pretraining": [["stable-pretraining"]],
    # It pins torch 1.9.1, which no Python from 3.10 on has: what its method imports, by hand.
    "solo-learn": [
        ["pytorch-lightning", "torchmetrics", "einops", "timm", "scipy", "tqdm"],
        ["--no-deps", "solo-learn"],
    ],
}


class Made(NamedTuple):
    """An environment: its interpreter, versions by peer, reasons of those left out, remarks."""

    python: Path
    versions: dict[str, str]
    left_out: dict[str, str]
    remarks: list[str]


class PeerError(RuntimeError):
    """A peer's process failed, or could not do a task; the message is its reason."""


class Worker:
    """A process that answers a line of JSON for each line of JSON."""

    def __init__(self, command: list[str]) -> None:
        self._errors = tempfile.TemporaryFile("w+")
        # Else their telemetry and progress would be part of what is timed.
        quiet = {"WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **quiet, "PYTHONPATH": ""},
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Its answer. Raises PeerError with its reason, or its last words where it is dead."""
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._errors.seek(0)
            raise PeerError((self._errors.read().strip().splitlines() or ["it ended"])[-1])
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer

    def close(self) -> None:
        """End the process."""
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        self._errors.close()


class Elsewhere:
    """A task of a worker as a competitor of `race`."""

    def __init__(self, worker: Worker, kind: str, **options: Any) -> None:
        self._worker, self._task = worker, [kind, options]

    def __call__(self, repeats: int) -> Cost:
        answer = self._worker.ask(task=self._task, repeats=repeats)
        return Cost(answer["cpu"], answer["wall"])


@contextmanager
def workers(say: Callable[[str], None] = print) -> Iterator[dict[str, Worker]]:
    """A process for each peer that installs; prints who takes part and who does not."""
    made = environment(say)
    for name, reason in made.left_out.items():
        say(f"{name} is left out: {reason}")
    for remark in made.remarks:
        say(remark)
    say(", ".join(f"{name} {version}" for name, version in made.versions.items()))
    with ExitStack() as stack:
        running = {}
        for name in made.versions:
            command = [str(made.python), str(TASKS), name, str(torch.get_num_threads())]
            running[name] = Worker(command)
            stack.callback(running[name].close)
        yield running


def environment(say: Callable[[str], None] = print, home: Path = CACHE) -> Made:
    """The peers' environment, made if there is none yet for this torch, Python and list.

    BYOL_PEERS names the interpreter of one that was made by hand, where PyPI is out of reach.
    """
    if given := os.environ.get("BYOL_PEERS"):
        tried = {name: _tried(Path(given), name) for name in PEERS}
        left_out = {name: reason for name, reason in tried.items() if reason}
        versions = {name: _version(Path(given), name) for name in PEERS if name not in left_out}
        return Made(Path(given), versions, left_out, [])
    key = [sys.version, torch.__version__, torchvision.__version__, json.dumps(PEERS)]
    root = home / hashlib.sha256("\n".join(key).encode()).hexdigest()[:12]
    root.mkdir(parents=True, exist_ok=True)
    record = root / "made.json"
    python = root / "env" / "bin" / "python"
    with FileLock(root / "lock"):
        if not record.exists():
            say(f"making the peers' environment in {root} from PyPI (several GB, minutes)")
            found = _make(root / "env", python)
            record.write_text(json.dumps(found, indent=1) + "\n")
        return Made(python, **json.loads(record.read_text()))


def _make(folder: Path, python: Path) -> dict[str, Any]:
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    ours = {"torch": torch.__version__, "torchvision": torchvision.__version__}
    pins = [f"{name}=={version.split('+')[0]}" for name, version in ours.items()]
    remarks: list[str] = []
    if reason := _pip(python, pins):
        remarks.append(f"the peers have another torch than byol, as {' '.join(pins)}: {reason}")
        pins = []
        if reason := _pip(python, ["torch", "torchvision"]):
            raise PeerError(f"torch could not be installed for the peers: {reason}")
    versions, left_out = {}, {}
    for name, calls in PEERS.items():
        reason = next((r for call in calls if (r := _pip(python, [*call, *_kept(call, pins)]))), "")
        if reason := reason or _tried(python, name):
            left_out[name] = reason
        else:
            versions[name] = _version(python, name)
    return {"versions": versions, "left_out": left_out, "remarks": remarks}


def _kept(call: list[str], pins: list[str]) -> list[str]:
    return [] if "--no-deps" in call else pins


def _pip(python: Path, arguments: list[str]) -> str:
    """Install; why it did not work, or nothing."""
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True)
    lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    return "" if done.returncode == 0 else (lines or ["pip failed"])[0].removeprefix("ERROR: ")


def _tried(python: Path, name: str) -> str:
    """One small step; why it did not work, or nothing."""
    worker = Worker([str(python), str(TASKS), name, "1"])
    options = {"network": "resnet18", "size": 32, "batch": 4, "setting": "shipped"}
    try:
        Elsewhere(worker, "step", **options)(1)
    except PeerError as error:
        return f"it installs, but fails: {error}"
    finally:
        worker.close()
    return ""


def _version(python: Path, name: str) -> str:
    script = f"import importlib.metadata as m; print(m.version({name!r}))"
    return subprocess.run([python, "-c", script], capture_output=True, text=True).stdout.strip()
