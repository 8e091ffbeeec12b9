"""Gradients in a fixed order: the same bits for any number of processes, and errors on all of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parallel_task import Task, refusals

import fastrnn
from fastrnn.parallel import Exchange, MPIExchange, TorchExchange, fixed_order

TASK = Path(__file__).with_name("parallel_task.py")


class Threads(Exchange):
    """Processes that are threads, so that many numbers of them can be tried."""

    def __init__(self, rank: int, size: int, shared: dict[Any, Any], barrier: threading.Barrier) -> None:
        self.rank, self.size, self.shared, self.barrier = rank, size, shared, barrier

    def gather(self, array: Any) -> Any:
        self.shared[self.rank] = array.copy()
        self.barrier.wait(30)
        out = np.stack([self.shared[rank] for rank in range(self.size)])
        self.barrier.wait(30)
        return out

    def swap(self, array: Any, partner: int) -> Any:
        return self.gather(array)[partner]


def in_threads(size: int, work: Any) -> list[Any]:
    """Results of work(exchange) of each of so many threads."""
    shared: dict[Any, Any] = {}
    barrier, results = threading.Barrier(size), [None] * size

    def run(rank: int) -> None:
        results[rank] = work(Threads(rank, size, shared, barrier))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("shards", [1, 3, 4, 6, 8, 12])
def test_any_number_of_processes(shards: int) -> None:
    rng = np.random.default_rng(shards)
    batch = np.arange(24)
    numbers = (rng.standard_normal((24, 50)) * 10.0 ** rng.integers(-8, 8, (24, 50))).astype(np.float32)
    numbers[:, 0] = 0

    def gradients(shard: Any) -> Any:
        first = numbers[shard].sum(axis=0)
        first[0] = -0.0
        return float(shard.sum()), [
            first,
            numbers[shard, :3].astype(np.float64).sum(axis=0),
        ]

    def bits(exchange: Any) -> Any:
        loss, (one, other) = fixed_order(gradients, batch, shards, exchange)
        assert (one.dtype, other.dtype) == (np.float32, np.float64)
        return np.float64(loss).tobytes() + one.tobytes() + other.tobytes()

    want = bits(None)
    for size in range(1, shards + 1):
        assert in_threads(size, bits) == [want] * size, size
    loss, (one, _) = fixed_order(gradients, batch, shards, reduction="sum")
    assert loss == batch.sum()
    np.testing.assert_allclose(one, numbers.astype(np.float64).sum(axis=0), rtol=1e-5, atol=10)
    assert not np.signbit(one[0])


def test_another_order_has_other_bits() -> None:
    """The comparison above can fail: a sum from left to right differs from that of the tree."""
    numbers = np.random.default_rng(0).standard_normal((8, 500)).astype(np.float32)
    _, (tree,) = fixed_order(lambda i: (0.0, numbers[i[0]]), np.arange(8), 8, reduction="sum")
    plain = numbers[0].copy()
    for row in numbers[1:]:
        plain += row
    assert (tree != plain).any()
    np.testing.assert_allclose(tree, plain, rtol=1e-4, atol=1e-5)


def test_training_equals_that_of_the_whole_batch() -> None:
    task = Task()
    loss, grads = fixed_order(task.gradients, np.arange(24), 8)
    want_loss, want = task.gradients(np.arange(24))
    assert loss == pytest.approx(want_loss, rel=1e-6)
    for one, other in zip(grads, want, strict=True):
        np.testing.assert_allclose(one, other.flat, rtol=1e-4, atol=1e-6)
    assert [g.shape for g in grads] == [task.gru.flat.shape, task.head.flat.shape]


def test_threads_of_the_core_do_not_matter() -> None:
    before = fastrnn.get_num_threads()
    found = set()
    for threads in (1, 2, 3):
        fastrnn.set_num_threads(threads)
        found.add(Task().train(Exchange()))
    fastrnn.set_num_threads(before)
    assert len(found) == 1


EXPECTED = [
    "the same on every process",
    "the same on every process",
    "the same on every process",
    "the same on every process",
    "shards: expected a divisor of the batch's 23, got 8",
    "",
    "no error on any process, got one on [1]",
]


def check_refusals(results: list[list[str]]) -> None:
    for rank, lines in enumerate(results):
        assert len(lines) == len(EXPECTED)
        for number, (line, expected) in enumerate(zip(lines, EXPECTED, strict=True)):
            if number == 6 and rank == 1:
                assert line == "KeyError 'no such file'"
            else:
                assert line.startswith("ValueError "), line
                assert expected in line


def test_disagreement_is_refused_on_every_process() -> None:
    check_refusals(in_threads(3, refusals))
    with pytest.raises(ValueError, match="reduction"):
        fixed_order(Task().gradients, np.arange(8), reduction="max")
    with pytest.raises(ValueError, match="shards: expected a divisor"):
        fixed_order(Task().gradients, np.arange(9))
    with pytest.raises(TypeError, match="grad_of_shard"):
        fixed_order(lambda shard: (0.0, np.arange(3)), np.arange(8))
    with pytest.raises(TypeError, match="shards: expected an integer"):
        fixed_order(Task().gradients, np.arange(8), 2.0)  # type: ignore[arg-type]
    assert repr(Exchange()) == "Exchange(rank=0, size=1)"


def start(*command: str) -> subprocess.Popen[str]:
    paths = [str(TASK.parent), *sys.path]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    # Open MPI: more processes than cores, and by whatever user the tests are run
    environment |= {"PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}
    environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return subprocess.Popen(
        list(command), env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def results_of(processes: list[subprocess.Popen[str]]) -> list[list[str]]:
    found = []
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err[-3000:]
        found.append(out.splitlines())
    return found


def expected_hashes() -> dict[str, str]:
    return {str(shards): Task().train(Exchange(), shards) for shards in (4, 6, 8)}


def test_torch_distributed(tmp_path: Path) -> None:
    """Real processes: groups of 1 to 4 of them have the bits of one without torch."""
    pytest.importorskip("torch")
    command = [sys.executable, str(TASK), "torch"]
    processes = [start(*command, str(rank), "4", str(tmp_path / "file")) for rank in range(4)]
    want, refused = expected_hashes(), []
    for lines in results_of(processes):
        hashes = [line.split() for line in lines if not line.startswith("refused")]
        assert {count for count, _, _ in hashes} <= set("1234")
        assert all(found == want[shards] for _, shards, found in hashes)
        refused.append([line.removeprefix("refused ") for line in lines if line.startswith("refused")])
    assert sum(map(len, refused)) == 4 * len(EXPECTED)
    check_refusals(refused)


def test_mpi() -> None:
    pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    mpirun = shutil.which("mpirun") or shutil.which("mpiexec")
    if mpirun is None:
        pytest.skip("there is no mpirun")
    want = expected_hashes()
    for size in (2, 3):
        (lines,) = results_of([start(mpirun, "-n", str(size), sys.executable, str(TASK), "mpi")])
        hashes = [line.split() for line in lines]
        assert len(hashes) == 3 * size
        assert all(found == want[shards] for _, shards, found in hashes)


def test_exchanges_say_what_they_need() -> None:
    torch = pytest.importorskip("torch")
    assert not torch.distributed.is_initialized()
    with pytest.raises(RuntimeError, match="init_process_group"):
        TorchExchange()
    code = "import sys; sys.modules['{}'] = None\nfrom fastrnn import parallel; parallel.{}()"
    for module, name, extra in (("torch", "TorchExchange", "torch"), ("mpi4py", "MPIExchange", "mpi")):
        process = start(sys.executable, "-c", code.format(module, name))
        assert f"pip install 'fastrnn[{extra}]'" in process.communicate(timeout=60)[1]


def test_mpi_exchange_takes_a_communicator() -> None:
    class Alone:
        def Get_rank(self) -> int:
            return 0

        def Get_size(self) -> int:
            return 1

        def Allgather(self, mine: Any, out: Any) -> None:
            out[0] = mine

    exchange = MPIExchange(Alone())
    assert exchange.gather(np.arange(3)).tolist() == [[0, 1, 2]]
    assert Task().train(exchange) == Task().train(Exchange())
