"""Device, precision, environment and doctor."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import torch

from byol.engine import device, doctor
from byol.errors import UserError

CPU = torch.device("cpu")
MISMATCH = "RuntimeError: operator torchvision::nms does not exist"


@pytest.fixture
def only_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda chosen: "GPU 1000")


def test_auto_on_a_cpu(only_cpu: None) -> None:
    assert device.pick_device() == CPU == device.pick_device("cpu")


def test_auto_prefers_cuda(one_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "trouble", lambda chosen: None)
    assert device.pick_device().type == "cuda"
    assert device.pick_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(UserError, match="cuda:1 was asked for, this machine offers cpu, cuda"):
        device.pick_device("cuda:1")


def test_a_busy_gpu_is_not_passed_over(one_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "trouble", lambda chosen: "out of memory")
    for name in ("auto", "cuda"):
        with pytest.raises(UserError, match=r"cuda cannot be used \(out of memory\)"):
            device.pick_device(name)


def test_a_gpu_too_old_for_torch_is_passed_over(
    one_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "trouble", lambda chosen: "CUDA error: no kernel image is ...")
    with pytest.warns(UserWarning, match="does not support GPU 1000; the CPU is used"):
        assert device.pick_device() == CPU


def test_absent_and_unknown_devices(only_cpu: None) -> None:
    for name in ("cuda", "cuda:3", "mps"):
        with pytest.raises(UserError, match=f"{name} was asked for, this machine offers cpu alone"):
            device.pick_device(name)
    for name in ("gpu", "", "meta", "cpu:x"):
        with pytest.raises(UserError, match="is not known: give auto, cpu, cuda"):
            device.pick_device(name)


@pytest.mark.parametrize("has", [True, False])
def test_precision(monkeypatch: pytest.MonkeyPatch, has: bool) -> None:
    monkeypatch.setattr(device, "has_bf16", lambda chosen: has)
    assert device.pick_precision(CPU) == ("bf16" if has else "fp32")
    assert device.pick_precision(CPU, "fp32") == "fp32"
    if has:
        assert device.pick_precision(CPU, "bf16") == "bf16"
    else:
        with pytest.raises(UserError, match="bf16 was asked for, but .* does not compute with it"):
            device.pick_precision(CPU, "bf16")
    with pytest.raises(UserError, match="'fp16' is not known"):
        device.pick_precision(CPU, "fp16")


def test_autocast() -> None:
    x, linear = torch.randn(2, 3), torch.nn.Linear(3, 4)
    with device.autocast(CPU, "bf16"):
        assert linear(x).dtype == torch.bfloat16
    with device.autocast(CPU, "fp32"):
        assert linear(x).dtype == torch.float32


def test_deterministic_switch() -> None:
    try:
        device.make_deterministic(True)
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.benchmark
    finally:
        device.make_deterministic(False)
    assert not torch.are_deterministic_algorithms_enabled()


def test_environment_is_json() -> None:
    found = json.loads(json.dumps(device.environment()))
    assert found["packages"]["torch"] == torch.__version__
    assert found["cores"] >= 1 and found["cpu"]


@pytest.mark.parametrize(
    ("returncode", "stderr", "verdict"),
    [
        (0, "a warning", "ok"),
        (1, f"Traceback\n{MISMATCH}\n", "torch and torchvision are of different builds"),
        (1, "OSError: libtorch.so: undefined symbol: _ZN3c10", "of different builds"),
        (1, "ModuleNotFoundError: No module named 'PIL'", "its import fails (ModuleNotFoundError"),
        (-11, "", "its import fails (code -11)"),
    ],
)
def test_torchvision_verdict(returncode: int, stderr: str, verdict: str) -> None:
    found = doctor.torchvision_verdict(returncode, stderr)
    assert verdict in found
    assert returncode == 0 or "https://pytorch.org/get-started" in found


def test_doctor(only_cpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def mismatch(command: list[str], **options: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.CompletedProcess(command, 1, "", MISMATCH)

    monkeypatch.setattr(subprocess, "run", mismatch)
    rows = {row.what: row for row in doctor.doctor()}
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    extras = re.findall(r"^(?:remote|nyu|detection) = (.*)$", text, re.MULTILINE)
    optional = set(re.findall(r'"(\w+)>=', " ".join(extras)))
    assert len(optional) == 5 and optional | {"datasets"} == set(doctor.OPTIONAL) <= set(rows)
    assert "different builds" in rows["torchvision"].verdict
    assert rows["torch"].found == torch.__version__
    assert rows["would be used"].found.startswith("cpu, ")
    assert {"Python", "timm", "processor", "CPU bf16", "memory", "CUDA", "MPS", "disk"} <= set(rows)
    assert all(isinstance(cell, str) and cell for row in rows.values() for cell in row)
