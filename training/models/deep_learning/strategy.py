"""Distributed strategy: what the training loop does differently in one process and in several.

`SingleProcess` is the strategy of an ordinary fit; `sharding.ShardedProcesses` divides one fit among the processes of
`torchrun`. In every process the loop calls the same methods in the same order.
"""

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from training.models.deep_learning.sequences import Batch
from training.models.deep_learning.task import NextItemTask


class SingleProcess:
    """One process does all the work."""

    file_suffix = ""
    """Distinguishes the checkpoint files of the processes."""

    def prepare(self, task: NextItemTask) -> tuple[nn.Module, list[Tensor]]:
        """The module to call for the loss, and the parameters that this process updates."""
        return task, [p for p in task.parameters() if p.requires_grad]

    def shard_batch(self, batch: Batch) -> tuple[Batch, float]:
        """The sequences of this process, and the weight of their mean loss in the mean loss of the whole batch."""
        return batch, 1.0

    def shard_rows(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The part of these rows, [n], that this process handles."""
        return rows

    def backward(self, loss: Tensor) -> None:
        """Fill the gradients of the parameters. loss: this process's part of the loss of the batch."""
        loss.backward()  # type: ignore[no-untyped-call]

    def clip_gradients(self, parameters: list[Tensor], norm: float) -> None:
        """Scale the gradients down to this norm, taken over all parameters of all processes."""
        nn.utils.clip_grad_norm_(parameters, norm)

    def all_reduce_sum(self, value: float) -> float:
        """The sum over all processes; every process gets the same number."""
        return value

    def broadcast(self, value: float) -> float:
        """The value of the first process, in every process."""
        return value

    def all_equal(self, value: float) -> bool:
        """Whether all processes have the same value; every process gets the same answer."""
        return True
