"""The training task: predict the next item at every place of a sequence. Embeddings and loss; no data, no optimiser.

With `sharding` the only modules here that import torchrec; serving never loads them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchrec import EmbeddingCollection, EmbeddingConfig, KeyedJaggedTensor

from training.models.deep_learning.network import N_TYPES, Network
from training.models.deep_learning.repeat_consumption import count_sequences
from training.models.deep_learning.softmax import Movement, Own, Past, cross_entropy

ITEM, TYPE = "item", "event_type"


@dataclass(frozen=True)
class Step:
    """One batch of b sequences of at most l events, as indices into the u items that it touches."""

    touched: Tensor  # int64 [u] positions of items, ascending
    content: Tensor  # [u, content_width]
    known: Tensor  # [u] 1 where an item's id counts, 0 where it is known by content alone
    items: Tensor  # int64 [b, l] in [0, u)
    types: Tensor  # int64 [b, l] codes
    weights: Tensor  # [b, l]
    lengths: Tensor  # int64 [b] events of each sequence
    times: Tensor  # int64 [b, l] microseconds
    counted: Tensor  # bool [b, l] places whose event is a target of the loss
    before: Tensor  # int64 [b, l] events of the sequence that are known where its event is asked for
    moments: Tensor | None  # int64 [b, l] of the trends; None: nothing moves
    log_chance: Tensor | None  # [u] log of the chance that each item is in the sample; None: all are


class NextItemTask(nn.Module):
    """Cross-entropy of the next item against the catalogue, or against a sample of it.

    Args:
        network: learned in place.
        n_items: size of the catalogue.
        trends: [m, k, n_items] of all items at m moments, or None.
        mask_past: leave what a sequence has shown out of the softmax.
        repeats: learn what repetition adds.
        low_precision: multiply in bfloat16.
    """

    trends: Tensor | None

    def __init__(
        self,
        network: Network,
        n_items: int,
        trends: Tensor | None,
        mask_past: bool = False,
        repeats: bool = False,
        low_precision: bool = False,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.mask_past, self.repeats, self.low_precision = mask_past, repeats, low_precision
        self.register_buffer("trends", trends, persistent=False)
        width = network.types.shape[1]
        tables = [
            EmbeddingConfig(name=name, embedding_dim=width, num_embeddings=n, feature_names=[name], init_fn=_init)
            for name, n in ((ITEM, n_items), (TYPE, N_TYPES))
        ]
        self.embeddings = EmbeddingCollection(tables=tables, device=device)

    def vectors(self, touched: Tensor, content: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of the touched items [u, d] and of all event types [n_types, d]."""
        ids, types = self.lookup(touched)
        return self.network.items(ids, content, known), types

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
        """Mean loss over the counted places, a scalar.

        Event p of a sequence is predicted by the state that has seen `before` events of it. Taking the log chance off
        the logits makes the sampled softmax estimate the full one (Bengio and Senecal, 2008); the items of a place's
        own sequence are always in the sample, whatever their chance, so nothing is taken off for them.
        """
        with torch.autocast(step.items.device.type, torch.bfloat16, enabled=self.low_precision):
            vectors, kinds = self.vectors(step.touched, step.content, step.known)
            inputs = self.network.users.embed(
                functional.embedding(step.items[:, :-1], vectors),
                functional.embedding(step.types[:, :-1], kinds),
                step.weights[:, :-1],
            )
            rows, targets = step.counted.nonzero(as_tuple=True)
            places = step.before[rows, targets]
            users = self.network.users(inputs)[rows, places]  # [n, d + k]
        movement = None
        if self.trends is not None and step.moments is not None:
            movement = Movement(self.trends[:, :, step.touched], step.moments[step.counted])
        return cross_entropy(
            users.float(),
            vectors.float(),
            step.items[step.counted],
            movement,
            Past(step.items, rows, places) if self.mask_past else None,
            self._own(step, rows, places, vectors),
            step.log_chance,
            self.low_precision,
        )

    def _own(self, step: Step, rows: Tensor, places: Tensor, vectors: Tensor) -> Own | None:
        """What is added for the items of a place's own sequence: repetition, and the log chance taken off before.

        rows, places: int64 [n] the sequence of each place and the events it has seen; vectors: [u, d].
        """
        values = None
        if self.repeats:
            again = self.network.again
            counts = count_sequences(step.items, step.weights, step.times, rows, places, again.half_lives)
            values = again(again.strength(vectors.float())[step.items][rows], counts)  # [n, l]
        if step.log_chance is not None:
            valid = torch.arange(step.items.shape[1], device=step.items.device) < step.lengths.unsqueeze(1)
            taken = (step.log_chance[step.items] * (first_of_each(step.items) & valid))[rows]
            values = taken if values is None else values + taken
        return None if values is None else Own(step.items, rows, values)


def first_of_each(items: Tensor) -> Tensor:
    """Where a row's item is there for the first time, bool of the same shape. items: int64 [b, l]."""
    same = items.unsqueeze(2) == items.unsqueeze(1)
    return ~same.tril(-1).any(dim=2)


def sample_log_chance(counts: Tensor, n_targets: int, n_drawn: int) -> Tensor:
    """Log chance that an item enters a sample: as one of `n_targets` targets or among `n_drawn` uniform draws.

    counts: [n] events of each item.
    """
    share = counts / counts.sum()
    return torch.log(-torch.expm1(-(n_targets * share + n_drawn / len(counts))))


def _init(weight: Tensor) -> Tensor:
    return nn.init.normal_(weight, std=0.02)
