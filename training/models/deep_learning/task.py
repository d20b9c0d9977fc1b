"""The training task: predict the next item at every place of a sequence. Embeddings and loss; no data, no optimiser.

Only this module and `sharding` import torchrec, which serving never loads.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchrec import EmbeddingCollection, EmbeddingConfig, KeyedJaggedTensor

from training.models.deep_learning.divided_tables import INITIAL_STD
from training.models.deep_learning.network import N_TYPES, Network
from training.models.deep_learning.repeat_consumption import decayed_counts_at
from training.models.deep_learning.softmax import HistoryBias, HistoryMask, TrendLogits, cross_entropy

ITEM, TYPE = "item", "event_type"


@dataclass(frozen=True)
class Step:
    """One batch of b sequences of at most l events, as indices into the u items that take part in the step."""

    touched: Tensor  # int64 [u] positions of those items, ascending
    content: Tensor  # [u, content_width]
    id_mask: Tensor  # [u] 1 where the item's id embedding is used, 0 where content alone describes it
    items: Tensor  # int64 [b, l] in [0, u)
    types: Tensor  # int64 [b, l] codes
    weights: Tensor  # [b, l]
    lengths: Tensor  # int64 [b] events of each sequence
    times: Tensor  # int64 [b, l] microseconds
    loss_mask: Tensor  # bool [b, l] places whose event is a target of the loss
    context_lengths: Tensor  # int64 [b, l] events of the sequence that are known at the query time of each event
    query_times: Tensor | None  # int64 [b, l] indices into the times of the recent popularity; None: it is not used
    log_q: Tensor | None  # [u] log of the probability that each item is in the sample; None: all items are


class NextItemTask(nn.Module):
    """Cross-entropy of the next item against the catalogue, or against a sample of it.

    Args:
        network: trained in place.
        n_items: size of the catalogue.
        popularity: [m, k, n_items] recent popularity at m times, or None.
        mask_history: leave the earlier items of a sequence out of the softmax.
        repeats: learn repeat consumption.
        low_precision: multiply in bfloat16.
        device: of the tables; the device `meta` makes none of their rows.
    """

    popularity: Tensor | None

    def __init__(
        self,
        network: Network,
        n_items: int,
        popularity: Tensor | None,
        mask_history: bool = False,
        repeats: bool = False,
        low_precision: bool = False,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        self.network, self.n_items = network, n_items
        self.mask_history, self.repeats, self.low_precision = mask_history, repeats, low_precision
        self.register_buffer("popularity", popularity, persistent=False)
        width = network.types.shape[1]
        tables = [
            EmbeddingConfig(name=name, embedding_dim=width, num_embeddings=n, feature_names=[name], init_fn=_init)
            for name, n in ((ITEM, n_items), (TYPE, N_TYPES))
        ]
        self.embeddings = EmbeddingCollection(tables=tables, device=device)

    def vectors(self, touched: Tensor, content: Tensor, id_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of the touched items [u, d] and of all event types [n_types, d]."""
        ids, types = self.lookup(touched)
        return self.network.items(ids, content, id_mask), types

    def lookup(self, touched: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the two tables: [u, d] and [n_types, d]."""
        kinds = torch.arange(N_TYPES, device=touched.device)
        features = KeyedJaggedTensor(
            keys=[ITEM, TYPE],
            values=torch.cat([touched, kinds]),
            lengths=torch.tensor([len(touched), N_TYPES], device=touched.device),
        )
        found = self.embeddings(features)
        return found[ITEM].values(), found[TYPE].values()

    def forward(self, step: Step) -> Tensor:
        """Mean loss over the places in the loss mask, a scalar.

        The target at place p is predicted by the state after the first `context_lengths[p]` events of its sequence.
        Subtracting log q from the logits makes the sampled softmax estimate the full one (Bengio and Senecal, 2008).
        The items of a place's own sequence are always in the sample, so nothing is subtracted for them.
        """
        with torch.autocast(step.items.device.type, torch.bfloat16, enabled=self.low_precision):
            vectors, kinds = self.vectors(step.touched, step.content, step.id_mask)
            inputs = self.network.users.embed(
                functional.embedding(step.items[:, :-1], vectors),
                functional.embedding(step.types[:, :-1], kinds),
                step.weights[:, :-1],
            )
            rows, targets = step.loss_mask.nonzero(as_tuple=True)
            places = step.context_lengths[rows, targets]
            users = self.network.users(inputs)[rows, places]  # [n, d + k]
        trend_logits = None
        if self.popularity is not None and step.query_times is not None:
            trend_logits = TrendLogits(self.popularity[:, :, step.touched], step.query_times[step.loss_mask])
        return cross_entropy(
            users.float(),
            vectors.float(),
            step.items[step.loss_mask],
            trend_logits,
            HistoryMask(step.items, rows, places) if self.mask_history else None,
            self._history_bias(step, rows, places, vectors),
            step.log_q,
            self.low_precision,
        )

    def _history_bias(self, step: Step, rows: Tensor, places: Tensor, vectors: Tensor) -> HistoryBias | None:
        """The bias on the items of a place's own sequence: repeat consumption, and log q to undo its subtraction.

        rows, places: int64 [n] the sequence and the context length of each place; vectors: [u, d].
        """
        values = None
        if self.repeats:
            repeats = self.network.repeat_consumption
            counts = decayed_counts_at(step.items, step.weights, step.times, rows, places, repeats.half_lives)
            values = repeats(repeats.strength(vectors.float())[step.items][rows], counts)  # [n, l]
        if step.log_q is not None:
            valid = torch.arange(step.items.shape[1], device=step.items.device) < step.lengths.unsqueeze(1)
            own = (step.log_q[step.items] * (first_occurrences(step.items) & valid))[rows]
            values = own if values is None else values + own
        return None if values is None else HistoryBias(step.items, rows, values)


def first_occurrences(items: Tensor) -> Tensor:
    """True where an item occurs for the first time in its row, bool of the same shape. items: int64 [b, l]."""
    same = items.unsqueeze(2) == items.unsqueeze(1)
    return ~same.tril(-1).any(dim=2)


def sample_log_q(counts: Tensor, n_targets: int, n_drawn: int) -> Tensor:
    """Log probability that an item enters the sample, as one of `n_targets` targets or of `n_drawn` uniform draws.

    counts: [n] events of each item.
    """
    share = counts / counts.sum()
    return torch.log(-torch.expm1(-(n_targets * share + n_drawn / len(counts))))


def _init(weight: Tensor) -> Tensor:
    return nn.init.normal_(weight, std=INITIAL_STD)
