"""One fit divided among processes: TorchRec shards the embeddings by rows, the towers are data-parallel.

Each process takes its share of the sequences of every batch. Each row of either table lives in one process alone: at
every step all of them ask for the rows that they need, and gradients go back the same way. What comes out is, up to
rounding and draws of dropout, what one process computes (docs/adr/0007 has why this way and no other).
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

from training.models.deep_learning.sequences import Batch
from training.models.deep_learning.task import ITEM, TYPE, NextItemTask

log = structlog.get_logger(__name__)

_EMBEDDINGS = "embeddings"
"""The attribute of the task that holds both tables."""


class OneProcess:
    """What the loop does alike in one process and in several, done by one."""

    name = ""
    """What tells the files of this process from those of the others."""

    def place(self, task: NextItemTask) -> tuple[nn.Module, list[Tensor]]:
        """The module that the loss goes through, and the parameters that this process updates."""
        return task, [p for p in task.parameters() if p.requires_grad]

    def share(self, batch: Batch) -> tuple[Batch, float]:
        """The sequences of this process, and how much their mean loss counts in that of the whole batch."""
        return batch, 1.0

    def rows(self, of_all: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Those of these rows, [n], that this process sees to."""
        return of_all

    def backward(self, loss: Tensor) -> None:
        """Fill the gradients of the parameters. loss: this process's part of the batch's."""
        loss.backward()  # type: ignore[no-untyped-call]

    def clip(self, parameters: list[Tensor], norm: float) -> None:
        """Shorten the gradient to this norm, over all parameters of all processes."""
        nn.utils.clip_grad_norm_(parameters, norm)

    def sum(self, value: float) -> float:
        """The sum over all processes, the same number in each."""
        return value

    def first(self, value: float) -> float:
        """The first process's value, in each."""
        return value

    def agrees(self, value: float) -> bool:
        """Whether all processes have the same value; the same answer in each."""
        return True


class Sharded(OneProcess):
    """The same in each of the processes of the default process group, on CPUs. All must call it in step.

    The CPU kernels of row-wise shards apply an optimiser of their own during `backward`, and AdamW is none of them. At
    a rate of one, plain descent from zero leaves minus the gradient: so it is read, clipped and handed to the loop's
    optimiser like every other.
    """

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.name = f"-{self.rank}-of-{self.size}"
        self.shards: list[Tensor] = []  # this process's rows [n, d] of each table, in the memory that is looked up
        self.others: list[Tensor] = []  # the same in all processes

    def place(self, task: NextItemTask) -> tuple[nn.Module, list[Tensor]]:
        descent = {"optimizer": EmbOptimType.EXACT_SGD, "learning_rate": 1.0}
        sharder = EmbeddingCollectionSharder(fused_params=descent)
        by_rows = row_wise(compute_kernel=EmbeddingComputeKernel.FUSED.value)
        plan = construct_module_sharding_plan(
            task.embeddings, {ITEM: by_rows, TYPE: by_rows}, sharder, self.size, self.size, "cpu"
        )
        self.others = [
            p for name, p in task.named_parameters() if p.requires_grad and not name.startswith(f"{_EMBEDDINGS}.")
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torchrec's own use of torch
            learner = DistributedModelParallel(
                task,
                device=torch.device("cpu"),
                plan=ShardingPlan({_EMBEDDINGS: plan}),
                sharders=[sharder],
            )
        # `.data`: they change between forward and backward, which no longer reads them.
        self.shards = [nn.Parameter(p.data) for p in task.embeddings.parameters()]
        held = {table: list(p.shape) for table, p in zip((ITEM, TYPE), self.shards, strict=True)}
        log.info("sharded", holder=type(task.embeddings).__name__, rank=self.rank, of=self.size, rows=held)
        if self.rank:
            torch.manual_seed(torch.initial_seed() + self.rank)  # dropout of its own, on the same weights
        return learner, [*self.others, *self.shards]

    def share(self, batch: Batch) -> tuple[Batch, float]:
        of_each = [int(batch.counted[rank :: self.size].sum()) for rank in range(self.size)]
        if not all(of_each):  # too few for all: each takes all
            return batch, 1 / self.size
        part = Batch(*(np.ascontiguousarray(getattr(batch, one.name)[self.rank :: self.size]) for one in fields(Batch)))
        return part, of_each[self.rank] / sum(of_each)

    def rows(self, of_all: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return of_all[self.rank :: self.size]

    def backward(self, loss: Tensor) -> None:
        rows = [shard.detach().clone() for shard in self.shards]
        for shard in self.shards:
            shard.data.zero_()
        super().backward(loss * self.size)  # gradients are averaged over the processes
        for shard, before in zip(self.shards, rows, strict=True):
            shard.grad = -shard.detach()
            shard.data.copy_(before)

    def clip(self, parameters: list[Tensor], norm: float) -> None:
        square = torch.stack([_gradient(shard).square().sum() for shard in self.shards]).sum()
        dist.all_reduce(square)
        rest = nn.utils.get_total_norm([_gradient(p) for p in self.others])
        nn.utils.clip_grads_with_norm_(parameters, norm, (square + rest.square()).sqrt())

    def sum(self, value: float) -> float:
        whole = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(whole)
        return self.first(whole.item())

    def first(self, value: float) -> float:
        told = torch.tensor(value, dtype=torch.float64)
        dist.broadcast(told, src=0)
        return told.item()

    def agrees(self, value: float) -> bool:
        return self.sum(float(self.first(value) != value)) == 0


def check_divisible(n_items: int, size: int, device: str) -> None:
    """Raises ValueError where a fit cannot be divided among so many processes."""
    if device != "cpu":
        raise ValueError(f"several processes train on CPUs only, not on {device}")
    if math.ceil(n_items / size) * (size - 1) >= n_items:
        raise ValueError(f"{n_items} items are too few to be divided among {size} processes")


def _gradient(parameter: Tensor) -> Any:
    return parameter.grad
