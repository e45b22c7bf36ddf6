"""What this machine offers to a run: devices, precision, cores; and what it is, for the record."""

import contextlib
import importlib.metadata
import os
import platform
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from byol.errors import UserError

_PACKAGES = ("torchvision", "timm", "numpy", "pillow", "safetensors")


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto": the first usable of CUDA, MPS and CPU.

    name: "auto", "cpu", "cuda", "cuda:1", "mps".
    Raises UserError where the machine has no such device or it cannot be used.
    """
    if name == "auto":
        return _best()
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"device {name!r} is not known: give auto, cpu, cuda, cuda:1, ... or mps")
    if device.type not in _offered() or (device.index or 0) >= count(device.type):
        raise UserError(
            f"device {name} was asked for, this machine offers {_listed()}: give one of these or "
            "auto (byol doctor says more)"
        )
    if why := trouble(device):
        raise UserError(f"{name} cannot be used ({why}): free it, or give --device cpu")
    return device


def pick_precision(device: torch.device, name: str = "auto") -> str:
    """The name "bf16" or "fp32"; "auto" is bf16 where the hardware computes with it.

    Raises UserError for another name, and for bf16 on hardware that would emulate it.
    """
    if name not in ("auto", "bf16", "fp32"):
        raise UserError(f"precision {name!r} is not known: give auto, bf16 or fp32")
    is_able = has_bf16(device)
    if name == "bf16" and not is_able:
        raise UserError(
            f"precision bf16 was asked for, but {describe(device)} does not compute with it: give "
            "fp32 or auto"
        )
    return "bf16" if is_able and name != "fp32" else "fp32"


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[object]:
    """The context of a forward pass: matrix products and convolutions in bf16, or nothing."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def make_deterministic(on: bool) -> None:
    """On: CUDA gives the same bits on every run, at some cost in speed (a CPU always does).
    Off: cuDNN tries which of its algorithms is fastest."""
    if on:  # read by cuBLAS when its first handle is made
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if on != torch.are_deterministic_algorithms_enabled():  # the call itself takes a second
        torch.use_deterministic_algorithms(on)
    # Else every new tensor is filled first, an aid for debugging alone.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not on


def cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def environment() -> dict[str, Any]:
    """What a run ran on, for `environment.json`: versions, processor, devices, commit."""
    return {
        "byol": version("byol"),
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {"torch": torch.__version__} | {name: version(name) for name in _PACKAGES},
        "cpu": cpu_name(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "devices": [describe(torch.device("cuda", i)) for i in range(count("cuda"))],
        "command": sys.argv,
    }


def _best() -> torch.device:
    if torch.cuda.is_available():
        cuda = torch.device("cuda")
        why = trouble(cuda)
        if why is None:
            return cuda
        if "no kernel image" not in why:  # in use or out of memory: not for us to pass over
            raise UserError(f"cuda cannot be used ({why}): free it, or give --device cpu")
        warnings.warn(
            f"this build of torch does not support {describe(cuda)}; the CPU is used", stacklevel=3
        )
        return torch.device("cpu")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def trouble(device: torch.device) -> str | None:
    """Why the device cannot add one to a number, in one line; None when it can."""
    try:
        (torch.zeros(1, device=device) + 1).item()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return None


def _offered() -> list[str]:
    return [name for name in ("cpu", "cuda", "mps") if count(name)]


def count(kind: str) -> int:
    if kind == "cuda":
        return torch.cuda.device_count() if torch.cuda.is_available() else 0
    return 1 if kind == "cpu" else int(torch.backends.mps.is_available())


def _listed() -> str:
    names = [f"{kind}:{i}" if i else kind for kind in _offered() for i in range(count(kind))]
    return ", ".join(names) + (" alone" if len(names) == 1 else "")


def describe(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return cpu_name() if device.type == "cpu" else "MPS"


def has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # On MPS it depends on chip and system, and torch does not tell: fp32.
    return device.type == "cpu" and bool(cpu_bf16())


def cpu_bf16() -> list[str]:
    """Which bf16 arithmetic the processor has, by the names of its instruction sets."""
    tests = {
        "avx512_bf16": getattr(torch.cpu, "_is_avx512_bf16_supported", None),
        "amx": getattr(torch.cpu, "_is_amx_tile_supported", None),
    }
    return [name for name, test in tests.items() if test is not None and test()]


def cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of this package's own checkout, "-dirty" when changed; None when installed."""
    package = Path(__file__).resolve().parents[1]  # .../src/byol
    root = package.parents[1]
    if package.parent.name != "src" or not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
