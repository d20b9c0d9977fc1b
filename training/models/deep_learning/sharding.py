"""One fit divided among processes: TorchRec shards the embeddings by rows, the towers are data-parallel.

Each process trains on its part of the sequences of every batch. Each row of the two embedding tables is stored in one
process only: in every step the processes exchange the rows that they need, and send the gradients back the same way.
No process makes the whole table of items, and their content is mapped from a file (`shared_data`). The finished model
is put together in the first process, which saves it.
The result equals that of one process up to rounding and the random draws of dropout.
docs/adr/0007-shards-leave-their-gradient-to-the-loop.md has the reasons and the alternatives.
"""

import math
import warnings
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog
import torch
import torch.distributed as dist
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from torch import Tensor, nn
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.sharding_plan import construct_module_sharding_plan, row_wise
from torchrec.distributed.types import ShardingPlan

from training.models.contract import FloatMatrix
from training.models.deep_learning.divided_tables import drawn_rows, rows_of_rank
from training.models.deep_learning.network import N_TYPES
from training.models.deep_learning.sequences import Batch
from training.models.deep_learning.strategy import SingleProcess
from training.models.deep_learning.task import ITEM, TYPE, NextItemTask

log = structlog.get_logger(__name__)

_EMBEDDINGS = "embeddings"
"""The attribute of the task that holds both tables."""


class ShardedProcesses(SingleProcess):
    """The strategy of several processes, on CPUs, over the default process group.

    All processes must call its methods in the same order.

    The CPU kernels of row-wise shards apply their own optimiser during `backward`, and AdamW is not among them. Plain
    gradient descent at a learning rate of one, started from zero, leaves exactly minus the gradient in the table. So
    `backward` sets the rows to zero, reads the gradient from them and restores them; the loop's optimiser then treats
    them like all other parameters.
    """

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.file_suffix = f"-{self.rank}-of-{self.size}"
        self.shards: list[Tensor] = []  # this process's rows [n, d] of each table, in the memory that lookups read
        self.replicated: list[Tensor] = []  # parameters that are the same in all processes

    def table_device(self, device: torch.device) -> torch.device:
        return torch.device("meta")

    def prepare(self, task: NextItemTask, ids: FloatMatrix | None) -> tuple[nn.Module, list[Tensor]]:
        first = [self._drawn(task.n_items, task), self._drawn(N_TYPES, task)]
        if ids is not None:
            own = np.ascontiguousarray(ids[rows_of_rank(task.n_items, self.rank, self.size)])
            first = [torch.from_numpy(own), task.network.types[rows_of_rank(N_TYPES, self.rank, self.size)]]
        descent = {"optimizer": EmbOptimType.EXACT_SGD, "learning_rate": 1.0}
        sharder = EmbeddingCollectionSharder(fused_params=descent)
        by_rows = row_wise(compute_kernel=EmbeddingComputeKernel.FUSED.value)
        plan = construct_module_sharding_plan(
            task.embeddings, {ITEM: by_rows, TYPE: by_rows}, sharder, self.size, self.size, "cpu"
        )
        self.replicated = [
            p for name, p in task.named_parameters() if p.requires_grad and not name.startswith(f"{_EMBEDDINGS}.")
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torchrec calls deprecated functions of torch
            module = DistributedModelParallel(
                task,
                device=torch.device("cpu"),
                plan=ShardingPlan({_EMBEDDINGS: plan}),
                sharders=[sharder],
            )
        # `.data`: `backward` overwrites the rows after the forward pass, and the backward pass does not read them.
        self.shards = [nn.Parameter(p.data) for p in task.embeddings.parameters()]
        for shard, rows in zip(self.shards, first, strict=True):
            if len(rows):
                shard.data.copy_(rows)
        held = {table: list(p.shape) for table, p in zip((ITEM, TYPE), self.shards, strict=True)}
        log.info("sharded", holder=type(task.embeddings).__name__, rank=self.rank, of=self.size, rows=held)
        if self.rank:
            torch.manual_seed(torch.initial_seed() + self.rank)  # every process draws its own dropout
        return module, [*self.replicated, *self.shards]

    def content_tensor(self, content: FloatMatrix, device: torch.device) -> Tensor:
        return torch.from_numpy(content)  # mapped from a file: a step reads the rows of its items

    def items_at_once(self, n_items: int) -> int:
        return math.ceil(n_items / self.size)

    def rounds(self, n_rows: int, at_once: int) -> int:
        return super().rounds(math.ceil(n_rows / self.size), at_once)

    def export_tables(self, task: NextItemTask) -> tuple[Tensor, Tensor]:
        width = task.network.types.shape[1]
        items, types = (
            self._gathered(shard, n_rows, width)
            for shard, n_rows in zip(self.shards, (task.n_items, N_TYPES), strict=True)
        )
        return items, types

    def _gathered(self, shard: Tensor, n_rows: int, width: int) -> Tensor:
        """The whole table [n_rows, width] in the first process, no row in the others."""
        if self.rank:
            if len(shard):
                dist.send(shard.detach().contiguous(), dst=0)
            return torch.empty(0, width)
        whole = torch.empty(n_rows, width)
        whole[: len(shard)] = shard.detach()
        for rank in range(1, self.size):
            if len(part := whole[rows_of_rank(n_rows, rank, self.size)]):
                dist.recv(part, src=rank)
        return whole

    def _drawn(self, n_rows: int, task: NextItemTask) -> Tensor:
        return drawn_rows(n_rows, task.network.types.shape[1], rows_of_rank(n_rows, self.rank, self.size))

    def shard_batch(self, batch: Batch) -> tuple[Batch, float]:
        targets = [int(batch.loss_mask[rank :: self.size].sum()) for rank in range(self.size)]
        if not all(targets):  # too few sequences for all processes: each takes the whole batch
            return batch, 1 / self.size
        part = Batch(*(np.ascontiguousarray(getattr(batch, one.name)[self.rank :: self.size]) for one in fields(Batch)))
        return part, targets[self.rank] / sum(targets)

    def shard_rows(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return rows[self.rank :: self.size]

    def backward(self, loss: Tensor) -> None:
        rows = [shard.detach().clone() for shard in self.shards]
        for shard in self.shards:
            shard.data.zero_()
        super().backward(loss * self.size)  # gradients are averaged over the processes
        for shard, before in zip(self.shards, rows, strict=True):
            shard.grad = -shard.detach()
            shard.data.copy_(before)

    def clip_gradients(self, parameters: list[Tensor], norm: float) -> None:
        square = torch.stack([_gradient(shard).square().sum() for shard in self.shards]).sum()
        dist.all_reduce(square)
        rest = nn.utils.get_total_norm([_gradient(p) for p in self.replicated])
        nn.utils.clip_grads_with_norm_(parameters, norm, (square + rest.square()).sqrt())

    def all_reduce_sum(self, value: float) -> float:
        whole = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(whole)
        return self.broadcast(whole.item())

    def broadcast(self, value: float) -> float:
        sent = torch.tensor(value, dtype=torch.float64)
        dist.broadcast(sent, src=0)
        return sent.item()

    def minimum(self, value: float) -> float:
        least = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(least, dist.ReduceOp.MIN)
        return least.item()


def check_divisible(n_items: int, size: int, device: str) -> None:
    """Raise ValueError where a fit cannot be divided among `size` processes."""
    if device != "cpu":
        raise ValueError(f"several processes train on CPUs only, not on {device}")
    if most_processes(n_items, size) < size:
        raise ValueError(f"{n_items} items are too few to be divided among {size} processes")


def most_processes(n_items: int, size: int) -> int:
    """The largest number of processes, of `size` at most, among which so many items can be divided; at least 1."""
    return next((each for each in range(size, 1, -1) if math.ceil(n_items / each) * (each - 1) < n_items), 1)


def _gradient(parameter: Tensor) -> Any:
    return parameter.grad
