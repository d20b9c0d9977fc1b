"""Distributed strategy: what the training loop does differently in one process and in several.

`SingleProcess` is the strategy of an ordinary fit; `sharding.ShardedProcesses` divides one fit among the processes of
`torchrun`. In every process the loop calls the same methods in the same order.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from training.models.contract import FloatMatrix
from training.models.deep_learning.sequences import Batch
from training.models.deep_learning.task import ITEM, TYPE, NextItemTask


class SingleProcess:
    """One process does all the work."""

    size = 1
    """The number of processes."""
    file_suffix = ""
    """Distinguishes the checkpoint files of the processes."""

    def table_device(self, device: torch.device) -> torch.device:
        """Where the tables of the task are made, before `prepare`."""
        return device

    def prepare(self, task: NextItemTask, ids: FloatMatrix | None) -> tuple[nn.Module, list[Tensor]]:
        """The module to call for the loss, and the parameters that this process updates.

        ids: float32 [n_items, d] that the table of items starts from, and with it the network's types; None: new rows.
        """
        if ids is not None:
            with torch.no_grad():
                task.embeddings.embeddings[ITEM].weight.copy_(torch.from_numpy(ids))
                task.embeddings.embeddings[TYPE].weight.copy_(task.network.types)
        return task, [p for p in task.parameters() if p.requires_grad]

    def content_tensor(self, content: FloatMatrix, device: torch.device) -> Tensor:
        """The content of all items on the device, [n_items, content_width]."""
        # `torch.tensor` copies: the rounding of matrix products depends on how memory is aligned.
        return torch.tensor(content, device=device)

    def items_at_once(self, n_items: int) -> int:
        """Items whose vectors this process may hold at once, outside of a step."""
        return n_items

    def rounds(self, n_rows: int, at_once: int) -> int:
        """How often each process must take `at_once` of its part of these rows, so that all of them are done."""
        return -(-n_rows // at_once)

    def export_tables(self, task: NextItemTask) -> tuple[Tensor, Tensor]:
        """The whole tables of items [n_items, d] and of event types [n_types, d], in the first process only."""
        return task.lookup(torch.arange(task.n_items, device=task.network.types.device))

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

    def minimum(self, value: float) -> float:
        """The least of the values of all processes; every process gets the same number."""
        return value
