"""How processes exchange arrays: not at all, over torch.distributed, over mpi4py."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Exchange:
    """One process alone, and what every exchange offers.

    Attributes
    ----------
    rank, size : int
        The number of this process, from 0, and how many there are.
    """

    rank = 0
    size = 1

    def gather(self, array: Array) -> Array:
        """Return the arrays of all processes, [size, ...]. All have one shape and dtype.

        Examples
        --------
        >>> Exchange().gather(np.ones(2)).shape
        (1, 2)
        """
        return array[None]

    def swap(self, array: Array, partner: int) -> Array:
        """Send an array to another process, and return the one that it sends to this one."""
        raise ValueError(f"partner: expected another process, got {partner} of {self.size}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(rank={self.rank}, size={self.size})"


class TorchExchange(Exchange):
    """Exchange over ``torch.distributed``, whose process group is initialised (for instance with gloo).

    A process that dies ends the others with the backend's error, within the time-out of the group.

    Parameters
    ----------
    group : optional
        A process group; by default all processes.

    Raises
    ------
    ImportError, RuntimeError
        PyTorch is not installed; there is no process group.
    """

    def __init__(self, group: Any = None) -> None:
        try:
            import torch
            import torch.distributed as distributed
        except ImportError as error:
            raise ImportError("TorchExchange needs PyTorch: pip install 'fastrnn[torch]'") from error
        if not distributed.is_available() or not distributed.is_initialized():
            raise RuntimeError(
                "group: expected torch.distributed.init_process_group first, got no process group"
            )
        self._from_numpy, self._distributed, self._group = torch.from_numpy, distributed, group
        self.rank, self.size = distributed.get_rank(group), distributed.get_world_size(group)

    def gather(self, array: Array) -> Array:
        """Return the arrays of all processes, [size, ...]. All have one shape and dtype."""
        out = np.empty((self.size, *array.shape), array.dtype)
        mine = self._from_numpy(np.ascontiguousarray(array))
        self._distributed.all_gather([self._from_numpy(part) for part in out], mine, group=self._group)
        return out

    def swap(self, array: Array, partner: int) -> Array:
        """Send an array to another process, and return the one that it sends to this one."""
        out = np.empty_like(array, order="C")
        distributed, group = self._distributed, self._group
        other = partner if group is None else distributed.get_global_rank(group, partner)
        mine = self._from_numpy(np.ascontiguousarray(array))
        operations = [
            distributed.P2POp(distributed.isend, mine, other, group),
            distributed.P2POp(distributed.irecv, self._from_numpy(out), other, group),
        ]
        for request in distributed.batch_isend_irecv(operations):
            request.wait()
        return out


class MPIExchange(Exchange):
    """Exchange over a communicator of mpi4py.

    Parameters
    ----------
    comm : optional
        By default ``MPI.COMM_WORLD``.

    Raises
    ------
    ImportError
        mpi4py is not installed.
    """

    def __init__(self, comm: Any = None) -> None:
        if comm is None:
            try:
                from mpi4py import MPI
            except ImportError as error:
                raise ImportError("MPIExchange needs mpi4py: pip install 'fastrnn[mpi]'") from error
            comm = MPI.COMM_WORLD
        self._comm = comm
        self.rank, self.size = comm.Get_rank(), comm.Get_size()

    def gather(self, array: Array) -> Array:
        """Return the arrays of all processes, [size, ...]. All have one shape and dtype."""
        out = np.empty((self.size, *array.shape), array.dtype)
        self._comm.Allgather(np.ascontiguousarray(array), out)
        return out

    def swap(self, array: Array, partner: int) -> Array:
        """Send an array to another process, and return the one that it sends to this one."""
        out = np.empty_like(array, order="C")
        self._comm.Sendrecv(np.ascontiguousarray(array), partner, recvbuf=out, source=partner)
        return out
