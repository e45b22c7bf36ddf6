"""docs/ablations.md holds what docs/ablations/ says, nothing by hand."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "ablations.py"


def script() -> Any:
    spec = importlib.util.spec_from_file_location("ablations", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_document_is_up_to_date() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_document_is_filled_from_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = script()
    row = {
        "name": "baseline", "method": "BYOL", "shares": {}, "mean": 61.04, "spread": 1.0,
        "difference": 0.0, "paper": 72.5, "paper_difference": 0.0, "verdicts": {"healthy": 2},
        "failed": [], "missing": 0,
    }  # fmt: skip
    summary = {
        "figure": "knn", "seeds": 2, "metric": "top-1", "source": "table 1", "untrained": 24.0,
        "correlation": {"BYOL": None}, "rows": [row],
    }  # fmt: skip
    environment = {"cpu": "a processor", "threads": 1, "packages": {"torch": "2.9"}}
    record = {
        "command": "byol ablate mine", "environment": environment, "runs": 2, "seconds": 40.2,
        "cpu_seconds": 38.0, "summary": summary,
    }  # fmt: skip
    (tmp_path / "mine.json").write_text(json.dumps(record))
    monkeypatch.setattr(module, "HOME", tmp_path)
    before = "a\n<!-- mine:begin -->\nold\n<!-- mine:end -->\nb\n"
    filled = module.filled(before + before.replace("mine", "other"))
    assert "| baseline | 61.0 ± 1.0 | +0.0 | 72.5 | +0.0 | healthy |" in filled
    assert "2 runs of 40 seconds each (38 of processor time); a processor, 1 threads" in filled
    assert "old" not in filled and filled.count("Not run yet.") == 1
    assert module.filled(filled) == filled
