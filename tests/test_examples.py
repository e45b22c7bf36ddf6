"""The files for clusters: that they can be read, and that the command in them is one of ours."""

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from byol.parser import build_parser

EXAMPLES = Path(__file__).parent.parent / "examples"
pytestmark = pytest.mark.dist


def parsed(words: list[str]) -> Any:
    """What our command line makes of everything after `-m byol`."""
    return build_parser().parse_args(words[words.index("byol") + 1 :])


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.s*")), ids=lambda path: path.name)
def test_scripts_are_shell(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_slurm() -> None:
    text = (EXAMPLES / "slurm.sbatch").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("srun")]
    asked = parsed(shlex.split(line))
    tasks, gpus = (
        next(int(row.split("=")[1]) for row in text.splitlines() if f"--{name}=" in row)
        for name in ("ntasks-per-node", "gpus-per-node")
    )
    assert tasks == gpus and int(asked.batch_size) % (2 * tasks) == 0
    assert (asked.data, asked.out) == ("$1", "$2")
    assert 'code" -eq 130' in text  # what byol exits with when it was stopped and has saved


def test_kubernetes() -> None:
    job = yaml.safe_load((EXAMPLES / "kubernetes.yaml").read_text())
    assert job["kind"] == "PyTorchJob"
    worker = job["spec"]["pytorchReplicaSpecs"]["Worker"]
    (container,) = worker["template"]["spec"]["containers"]
    words = container["command"] + container["args"]
    from torch.distributed.run import parse_args

    asked = parse_args(words[1:])  # torchrun's own options, as far as -m byol
    gpus = container["resources"]["limits"]["nvidia.com/gpu"]
    assert asked.module and asked.training_script == "byol" and int(asked.nproc_per_node) == gpus
    batch = int(parsed(words).batch_size)
    for replicas in range(job["spec"]["elasticPolicy"]["minReplicas"], worker["replicas"] + 1):
        assert batch % (replicas * gpus) == 0
    volumes = {volume["name"] for volume in worker["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes


@pytest.mark.slow
def test_two_nodes_on_one_machine(tmp_path: Path) -> None:
    options = "--epochs 1 --warmup-epochs 0 --batch-size 128 --final-linear false --quiet"
    command = [str(EXAMPLES / "two_nodes.sh"), "1", str(tmp_path / "run"), "digits"]
    command += ["--model", "convnet-16", *options.split()]
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))  # its python
    subprocess.run(command, check=True, env={**os.environ, "PATH": path, "PORT": "29457"})
    assert (tmp_path / "run" / "result.json").exists()
    machine = yaml.safe_load((tmp_path / "run" / "environment.json").read_text())
    assert len(machine["processes"]) == 2
