"""Training on several processes or machines, with gradients that do not depend on how many there are.

A batch is cut into a fixed number of shards. Each process computes the gradients of some of them, and all are added
in one fixed order. So the weights after training have the same bits for 1, 2, 3 or any other number of processes.

:class:`TorchExchange` sends over ``torch.distributed`` (``torchrun``), :class:`MPIExchange` over mpi4py (``mpirun``).
Each library is imported only where it is used.

Examples
--------
>>> import numpy as np, fastrnn
>>> from fastrnn import losses, optim
>>> from fastrnn.parallel import fixed_order
>>> gru, head = fastrnn.GRU(3, 8, rng=0), fastrnn.Linear(8, 1, rng=1)
>>> adam = optim.Adam([gru, head])
>>> x, target = np.ones((5, 16, 3), np.float32), np.zeros((16, 1), np.float32)
>>> def gradients(shard):
...     y, _, tape = gru.forward(x[:, shard])
...     out, kept = head.forward(y[-1])
...     loss, dout = losses.mse(out, target[shard])
...     dhead = head.backward(kept, dout)
...     return loss, [gru.backward(tape, dy_last=dhead.x, need_dx=False), dhead]
>>> loss, grads = fixed_order(gradients, np.arange(16), shards=8)
>>> adam.step(grads)
"""

from __future__ import annotations

from fastrnn.parallel._exchanges import Exchange, MPIExchange, TorchExchange
from fastrnn.parallel._fixed_order import fixed_order

__all__ = ["Exchange", "MPIExchange", "TorchExchange", "fixed_order"]
