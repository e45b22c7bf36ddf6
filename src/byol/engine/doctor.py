"""`byol doctor`: what this machine offers, what would be used, what is missing or mismatched."""

import os
import platform
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import torch

from byol.engine import device as devices
from byol.engine.files import size
from byol.errors import UserError

_INSTALL = (
    "install torch and torchvision together, of the same build: https://pytorch.org/get-started "
    "shows the command for this machine"
)
OPTIONAL = {
    "pycocotools": "for byol evaluate detect: pip install 'byol[detection]'",
    "torchmetrics": "for byol evaluate detect: pip install 'byol[detection]'",
    "fsspec": "for data at a URL (s3://, gs://, ...): pip install 'byol[remote]'",
    "h5py": "for NYU Depth v2 in byol evaluate depth: pip install 'byol[nyu]'",
    "scipy": "for NYU Depth v2 in byol evaluate depth: pip install 'byol[nyu]'",
    "datasets": "for Hugging Face data sets given from Python: pip install datasets",
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
    rows.extend(_package_row(name, f"ok: optional, {use}") for name, use in OPTIONAL.items())
    cpu = torch.device("cpu")
    rows.append(Row("processor", f"{devices.cpu_name()}, {devices.cores()} cores", "ok"))
    slow = "ok: fp32 is used on the CPU"
    bf16 = devices.cpu_bf16()
    rows.append(Row("CPU bf16", ", ".join(bf16) or "none", "ok" if devices.has_bf16(cpu) else slow))
    rows.append(_memory_row())
    rows.extend(_cuda_rows())
    mps = torch.backends.mps.is_available()
    rows.append(Row("MPS", "yes" if mps else "no", "ok" if mps else "ok: for Apple processors"))
    rows.append(_choice_row())
    rows.append(_disk_row(Path.cwd()))
    return rows


def _torchvision_row() -> Row:
    version = devices.version("torchvision")
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


def _package_row(name: str, advice: str) -> Row:
    version = devices.version(name)
    return Row(name, "not installed", advice) if version is None else Row(name, version, "ok")


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
        count = devices.count("cuda")
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
        bf16 = "bf16" if devices.has_bf16(device) else "no bf16"
        found = f"{devices.describe(device)}, {memory}, {bf16}"
        rows.append(Row(f"CUDA {i}", found, devices.trouble(device) or "ok"))
    return rows


def _choice_row() -> Row:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            device = devices.pick_device()
    except UserError as error:
        return Row("would be used", "nothing", str(error))
    return Row("would be used", f"{device.type}, {devices.pick_precision(device)}", "ok")


def _disk_row(folder: Path) -> Row:
    free = shutil.disk_usage(folder).free
    writable = os.access(folder, os.W_OK)
    verdict = "ok" if free > 2e9 else "little: checkpoints of large models take 1 GB each"
    if not writable:
        verdict = "this folder cannot be written: give --out elsewhere"
    return Row("disk", f"{size(free)} free in {folder}", verdict)
