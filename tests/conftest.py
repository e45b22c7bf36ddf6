"""Fixtures shared by all tests."""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # before torch: as the command line does

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Any]:
    """golden("loss") -> the arrays of tests/golden/loss.npz, computed by the official code."""
    return lambda name: np.load(GOLDEN / f"{name}.npz")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder that BYOL_DATA names; tests on real images are skipped without it."""
    folder = os.environ.get("BYOL_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("BYOL_DATA names no folder with the real data sets (see README)")
    return Path(folder)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
