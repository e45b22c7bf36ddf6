"""Who a process is, and what several agree on."""

import os
import socket
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from byol.engine import place as places
from byol.engine.place import Place
from byol.engine.processes import ALONE, Processes, hint, start
from byol.errors import Agreed, Lost, UserError
from tests.several import several

pytestmark = pytest.mark.dist
NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ({}, Place()),
        ({"RANK": "3", "WORLD_SIZE": "8", "SLURM_PROCID": "0"}, (3, 8)),
        ({"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "6"}, (5, 6)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "6"}, Place()),  # the script of sbatch itself
    ],
)
def test_the_place_is_that_of_torchrun_or_srun(
    there: dict[str, str], expected: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name in NAMES or name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    for name, value in there.items():
        monkeypatch.setenv(name, value)
    assert places.place() == expected


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("gpu[003-010,020],cpu1", "gpu003"), ("a,b", "a"), ("n[7,9]-ib", "n7-ib"), ("host", "host")],
)
def test_the_first_machine_of_slurms_short_form(nodes: str, first: str) -> None:
    assert places.first_node(nodes) == first


@pytest.mark.parametrize(("n", "world"), [(10, 3), (2, 3), (0, 2), (7, 1), (4096, 512)])
def test_shares_are_everything_once(n: int, world: int) -> None:
    shares = [list(Processes(Place(rank, world)).share(n)) for rank in range(world)]
    assert [i for share in shares for i in share] == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_everything_is_as_it_was() -> None:
    x = torch.tensor([1.0, 2.0])
    ALONE.mean_([x])
    assert x.tolist() == [1, 2] and ALONE.rows(x) is x and ALONE.gather(3) == [3]
    assert ALONE.any([torch.tensor(True), torch.tensor(0.0)]) == [True, False]
    with pytest.raises(UserError, match="^as it is$"), ALONE.together():
        raise UserError("as it is")


def _agreeing() -> dict[str, Any]:
    found: dict[str, Any] = {}
    with start(wants_gpu=False) as all_of_us:
        rank = all_of_us.rank
        found["gathered"] = all_of_us.gather(rank * 10)
        found["main"] = all_of_us.from_main(rank + 5)
        found["any"] = all_of_us.any([torch.tensor(rank == 1), torch.tensor(False)])
        x, y = torch.tensor([float(rank)]), torch.tensor([[3.0 * rank, 1.0]])
        all_of_us.mean_([x, y])
        found["mean"] = (x.tolist(), y.tolist())
        found["rows"] = all_of_us.rows(torch.full((rank, 2), rank)).tolist()  # 0, 1, 2 rows
        for name, faulty in (("one", rank == 1), ("all", True)):
            try:
                with all_of_us.together():
                    if faulty:
                        raise UserError("no shard")
            except Agreed as error:
                found[name] = str(error)
        try:
            all_of_us.agree({"optim": {"epochs": 3 if rank == 2 else 4}, "seed": 0})
        except Agreed as error:
            found["agree"] = str(error)
    return found


def test_three_processes_agree() -> None:
    for found in several(3, _agreeing):
        assert found["gathered"] == [0, 10, 20] and found["main"] == 5
        assert found["any"] == [True, False]
        assert found["mean"] == ([1.0], [[3.0, 1.0]])
        assert found["rows"] == [[1, 1], [2, 2], [2, 2]]
        assert found["one"].startswith("rank 1 (process") and found["one"].endswith("no shard")
        assert found["all"] == "no shard"
        assert "rank 2" in found["agree"] and "optim.epochs = 3 and rank 0 4" in found["agree"]


def _on_gpus(seen: list[str]) -> tuple[int | None, int]:
    """Which GPU is this process's own, where each of three sees the ones that `seen` names."""
    gpus = seen[int(os.environ["RANK"])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "device_count", lambda: len(gpus))
        patch.setattr(torch.cuda, "get_device_properties", lambda i: SimpleNamespace(uuid=gpus[i]))
        with start(wants_gpu=False) as all_of_us:
            return all_of_us.gpu, all_of_us.local_world


@pytest.mark.parametrize(
    ("seen", "own"),
    [(["abc"] * 3, [0, 1, 2]), (["a", "b", "c"], [0, 0, 0]), (["ab"] * 3, [0, 1, None]),
     (["", "", ""], [None] * 3)],
)  # fmt: skip
def test_each_process_has_a_gpu_of_its_own(seen: list[str], own: list[int | None]) -> None:
    """The launcher shows all GPUs to each process (torchrun), or to each its own (srun)."""
    assert several(3, _on_gpus, seen) == [(gpu, 3) for gpu in own]


def test_a_machine_with_several_gpus_says_how_to_use_them(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    for count, says in ((1, False), (4, True)):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        for processes, device in ((ALONE, gpu), (ALONE, torch.device("cpu"))):
            sentence = hint(processes, device)
            assert (sentence is not None) == (says and device == gpu)
    assert "torchrun --nproc-per-node 4 -m byol" in str(hint(ALONE, gpu))
    assert hint(Processes(Place(0, 4)), gpu) is None


def _ending(how: str) -> Any:
    try:
        with start(wants_gpu=False) as all_of_us:
            torch.distributed.barrier()
            if all_of_us.rank == 1 and how == "killed":
                os._exit(9)
            if all_of_us.rank == 1:
                raise ZeroDivisionError("out of luck")
            torch.distributed.all_reduce(torch.ones(1))
    except (Lost, ZeroDivisionError) as error:
        return type(error).__name__, str(error), getattr(error, "speaks", None)


@pytest.mark.parametrize("how", ["killed", "failed"])
def test_the_end_of_one_is_the_end_of_all_with_its_name(how: str) -> None:
    zero, one, two = several(3, _ending, how)
    assert zero[0] == two[0] == "Lost" and zero[1] == two[1] and "rank 1 (process" in zero[1]
    assert (zero[2], two[2]) == (True, False)
    if how == "failed":
        assert one[0] == "ZeroDivisionError" and "ZeroDivisionError: out of luck" in zero[1]
    else:
        assert one is None and "without a word" in zero[1]


def _again(port: int, attempt: int) -> Any:
    """As torchrun starts and restarts: the same store on the same port each time."""
    os.environ.update(MASTER_PORT=str(port), TORCHELASTIC_USE_AGENT_STORE="True")
    if attempt and os.environ["RANK"] == "0":
        time.sleep(3)  # the others look around before it has written anything
    return _ending("killed" if attempt == 0 else "failed")


def test_a_restart_in_the_same_store_meets_nobody_of_before() -> None:
    """Neither addresses nor last words of a start that has ended are taken for this one's."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    for attempt, words in enumerate(("without a word", "out of luck")):
        zero, _, two = several(3, _again, store.port, attempt)
        assert zero[0] == two[0] == "Lost" and words in zero[1] and words in two[1]


def _once() -> int:
    with start(wants_gpu=False) as all_of_us:
        found = all_of_us.from_main(all_of_us.rank + 7)
        if all_of_us.is_main:
            time.sleep(0.5)  # and leaves last
    return found


def _many() -> list[int]:
    return [_once() for _ in range(4)]


def test_one_start_after_another() -> None:
    assert several(2, _many) == [[7] * 4] * 2


def _at(port: int) -> Any:
    os.environ["MASTER_PORT"] = str(port)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("byol.engine.meeting.ANSWER_SECONDS", 1)
        try:
            with start(wants_gpu=False):
                return None
        except UserError as error:
            return error


def test_a_port_in_use_is_one_sentence_of_the_first() -> None:
    with socket.socket() as busy:
        busy.bind(("0.0.0.0", 0))
        busy.listen()
        port = busy.getsockname()[1]
        first, second = several(2, _at, port)
    assert type(first) is UserError and "\n" not in str(first)
    assert f"rank 0 of 2 could not meet the others at 127.0.0.1:{port}" in str(first)
    assert str(first).endswith("give another MASTER_PORT")
    assert isinstance(second, Agreed)  # which only the first one says
