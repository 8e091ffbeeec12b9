"""DistributedDataParallel over gloo: two processes get the gradients of one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import fastrnn.torch  # noqa: E402


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return fastrnn.torch.convert(torch.nn.GRU(3, 8, num_layers=2, batch_first=True), verbose=False)


def batch() -> torch.Tensor:
    return torch.randn(8, 6, 3, generator=torch.Generator().manual_seed(1))


def work(rank: int, file: str) -> None:
    """Write the gradients of a process that sees half of the batch."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    wrapped = torch.nn.parallel.DistributedDataParallel(model())
    wrapped(batch()[4 * rank : 4 * rank + 4])[0].square().mean().backward()
    torch.save([p.grad for p in wrapped.parameters()], f"{file}.{rank}")
    torch.distributed.destroy_process_group()


def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    file = str(tmp_path / "file")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), file], env=environment, text=True, stderr=subprocess.PIPE
        )
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors[-2000:]
    alone = model()
    alone(batch())[0].square().mean().backward()
    for rank in range(2):
        for got, parameter in zip(torch.load(f"{file}.{rank}"), alone.parameters(), strict=True):
            torch.testing.assert_close(got, parameter.grad, rtol=1e-5, atol=1e-7)


if __name__ == "__main__":
    work(int(sys.argv[1]), sys.argv[2])
