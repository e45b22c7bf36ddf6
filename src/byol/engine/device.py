"""What this machine offers: device, precision, and `byol doctor`."""

import contextlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch

from byol.engine.files import size
from byol.errors import UserError

_PACKAGES = ("torchvision", "timm", "numpy", "pillow", "safetensors")
_INSTALL = (
    "install torch and torchvision together, of the same build: https://pytorch.org/get-started "
    "shows the command for this machine"
)


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
    if device.type not in _offered() or (device.index or 0) >= _count(device.type):
        raise UserError(
            f"device {name} was asked for, this machine offers {_listed()}: give one of these or "
            "auto (byol doctor says more)"
        )
    if trouble := _trouble(device):
        raise UserError(f"{name} cannot be used ({trouble}): free it, or give --device cpu")
    return device


def pick_precision(device: torch.device, name: str = "auto") -> str:
    """The name "bf16" or "fp32"; "auto" is bf16 where the hardware computes with it.

    Raises UserError for another name, and for bf16 on hardware that would emulate it.
    """
    if name not in ("auto", "bf16", "fp32"):
        raise UserError(f"precision {name!r} is not known: give auto, bf16 or fp32")
    has_bf16 = _has_bf16(device)
    if name == "bf16" and not has_bf16:
        raise UserError(
            f"precision bf16 was asked for, but {_describe(device)} does not compute with it: give "
            "fp32 or auto"
        )
    return "bf16" if has_bf16 and name != "fp32" else "fp32"


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
        "byol": _version("byol"),
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {"torch": torch.__version__} | {name: _version(name) for name in _PACKAGES},
        "cpu": _cpu_name(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "devices": [_describe(torch.device("cuda", i)) for i in range(_count("cuda"))],
        "command": sys.argv,
    }


class Row(NamedTuple):
    """One line of `byol doctor`: verdict is "ok", or what is missing and what to do."""

    what: str
    found: str
    verdict: str


def doctor() -> list[Row]:
    """What this machine offers, what would be used, what is missing or mismatched."""
    rows = [Row("Python", f"{platform.python_version()} ({sys.executable})", "ok")]
    rows.append(Row("torch", torch.__version__, "ok"))
    rows.append(_torchvision_row())
    rows.append(_package_row("timm", "encoders by name need it: pip install timm"))
    rows.append(_package_row("datasets", "optional, for Hugging Face data sets", optional=True))
    cpu = torch.device("cpu")
    rows.append(Row("processor", f"{_cpu_name()}, {cores()} cores", "ok"))
    slow = "ok: fp32 is used on the CPU"
    bf16 = _cpu_bf16()
    rows.append(Row("CPU bf16", ", ".join(bf16) or "none", "ok" if _has_bf16(cpu) else slow))
    rows.append(_memory_row())
    rows.extend(_cuda_rows())
    mps = torch.backends.mps.is_available()
    rows.append(Row("MPS", "yes" if mps else "no", "ok" if mps else "ok: for Apple processors"))
    rows.append(_choice_row())
    rows.append(_disk_row(Path.cwd()))
    return rows


def _best() -> torch.device:
    if torch.cuda.is_available():
        cuda = torch.device("cuda")
        trouble = _trouble(cuda)
        if trouble is None:
            return cuda
        if "no kernel image" not in trouble:  # in use or out of memory: not for us to pass over
            raise UserError(f"cuda cannot be used ({trouble}): free it, or give --device cpu")
        warnings.warn(
            f"this build of torch does not support {_describe(cuda)}; the CPU is used", stacklevel=3
        )
        return torch.device("cpu")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _trouble(device: torch.device) -> str | None:
    """Why the device cannot add one to a number, in one line; None when it can."""
    try:
        (torch.zeros(1, device=device) + 1).item()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return None


def _offered() -> list[str]:
    return [name for name in ("cpu", "cuda", "mps") if _count(name)]


def _count(kind: str) -> int:
    if kind == "cuda":
        return torch.cuda.device_count() if torch.cuda.is_available() else 0
    return 1 if kind == "cpu" else int(torch.backends.mps.is_available())


def _listed() -> str:
    names = [f"{kind}:{i}" if i else kind for kind in _offered() for i in range(_count(kind))]
    return ", ".join(names) + (" alone" if len(names) == 1 else "")


def _describe(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _cpu_name() if device.type == "cpu" else "MPS"


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # On MPS it depends on chip and system, and torch does not tell: fp32.
    return device.type == "cpu" and bool(_cpu_bf16())


def _cpu_bf16() -> list[str]:
    """Which bf16 arithmetic the processor has, by the names of its instruction sets."""
    tests = {
        "avx512_bf16": getattr(torch.cpu, "_is_avx512_bf16_supported", None),
        "amx": getattr(torch.cpu, "_is_amx_tile_supported", None),
    }
    return [name for name, test in tests.items() if test is not None and test()]


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
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


def _torchvision_row() -> Row:
    version = _version("torchvision")
    if version is None:
        return Row("torchvision", "not installed", _INSTALL)
    # In another process: a torchvision of another build breaks the import, sometimes the process.
    command = [sys.executable, "-W", "ignore", "-c", "import torchvision"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Row("torchvision", version, f"its import could not be tried ({error})")
    return Row("torchvision", version, torchvision_verdict(done.returncode, done.stderr))


def torchvision_verdict(returncode: int, stderr: str) -> str:
    """What the outcome of `import torchvision` in a process of its own means."""
    if returncode == 0:
        return "ok"
    last = ([line for line in stderr.splitlines() if line.strip()] or [f"code {returncode}"])[-1]
    if "torchvision::nms does not exist" in stderr or "undefined symbol" in stderr:
        return f"torch and torchvision are of different builds ({last.strip()}): {_INSTALL}"
    return f"its import fails ({last.strip()}): {_INSTALL}"


def _package_row(name: str, advice: str, optional: bool = False) -> Row:
    version = _version(name)
    if version is None:
        return Row(name, "not installed", f"ok: {advice}" if optional else advice)
    return Row(name, version, "ok")


def _memory_row() -> Row:
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total = page * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return Row("memory", "unknown", "ok")
    verdict = "ok" if total > 4e9 else "little: choose small models and batches"
    return Row("memory", size(total), verdict)


def _cuda_rows() -> list[Row]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count = _count("cuda")
    if count == 0:
        found = f"no device (torch is built for CUDA {torch.version.cuda})"
        if torch.version.cuda is None:
            found = "no (torch is built without CUDA)"
        said = [str(warning.message).splitlines()[0] for warning in caught]
        return [Row("CUDA", found, "; ".join(said) or f"ok; with an NVIDIA GPU here: {_INSTALL}")]
    rows = []
    for i in range(count):
        device = torch.device("cuda", i)
        memory = size(torch.cuda.get_device_properties(i).total_memory)
        bf16 = "bf16" if _has_bf16(device) else "no bf16"
        rows.append(
            Row(f"CUDA {i}", f"{_describe(device)}, {memory}, {bf16}", _trouble(device) or "ok")
        )
    return rows


def _choice_row() -> Row:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            device = pick_device()
    except UserError as error:
        return Row("would be used", "nothing", str(error))
    return Row("would be used", f"{device.type}, {pick_precision(device)}", "ok")


def _disk_row(folder: Path) -> Row:
    free = shutil.disk_usage(folder).free
    writable = os.access(folder, os.W_OK)
    verdict = "ok" if free > 2e9 else "little: checkpoints of large models take 1 GB each"
    if not writable:
        verdict = "this folder cannot be written: give --out elsewhere"
    return Row("disk", f"{size(free)} free in {folder}", verdict)
