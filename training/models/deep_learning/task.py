"""The training task: predict the next item at every place of a sequence. Embeddings and loss; no data, no optimiser.

With `sharding` the only modules here that import torchrec; serving never loads them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchrec import EmbeddingCollection, EmbeddingConfig, KeyedJaggedTensor

from training.models.deep_learning.network import N_TYPES, Network
from training.models.deep_learning.softmax import Movement, Past, cross_entropy

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
    counted: Tensor  # bool [b, l] places whose event is a target of the loss
    candidates: Tensor | None  # int64 [c] in [0, u); None: all that are touched
    column: Tensor  # int64 [u] each item's place among the candidates, c where it is none
    moments: Tensor | None  # int64 [b, l] of the trends; None: nothing moves
    log_chance: Tensor | None  # [c] log of the chance that each candidate is in the sample; None: all are


class NextItemTask(nn.Module):
    """Cross-entropy of the next item against the catalogue, or against a sample of it.

    Args:
        network: learned in place.
        n_items: size of the catalogue.
        trends: [m, k, n_items] of all items at m moments, or None.
        mask_past: leave what a sequence has shown out of the softmax.
        low_precision: multiply in bfloat16.
    """

    trends: Tensor | None

    def __init__(
        self,
        network: Network,
        n_items: int,
        trends: Tensor | None,
        mask_past: bool = False,
        low_precision: bool = False,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.mask_past, self.low_precision = mask_past, low_precision
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

        Place p of a sequence has seen p events and predicts event p. Taking the log chance off the logits makes the
        sampled softmax estimate the full one (Bengio and Senecal, 2008).
        """
        with torch.autocast(step.items.device.type, torch.bfloat16, enabled=self.low_precision):
            vectors, kinds = self.vectors(step.touched, step.content, step.known)
            inputs = self.network.users.embed(
                functional.embedding(step.items[:, :-1], vectors),
                functional.embedding(step.types[:, :-1], kinds),
                step.weights[:, :-1],
            )
            users = self.network.users(inputs)[step.counted]  # [n, d + k]
        rows, places = step.counted.nonzero(as_tuple=True)
        candidates = vectors if step.candidates is None else vectors[step.candidates]
        columns = step.column[step.items]  # [b, l]
        movement = None
        if self.trends is not None and step.moments is not None:
            chosen = step.touched if step.candidates is None else step.touched[step.candidates]
            movement = Movement(self.trends[:, :, chosen], step.moments[step.counted])
        return cross_entropy(
            users.float(),
            candidates.float(),
            columns[step.counted],
            movement,
            Past(columns, rows, places) if self.mask_past else None,
            step.log_chance,
            self.low_precision,
        )


def sample_log_chance(counts: Tensor, n_targets: int, n_drawn: int) -> Tensor:
    """Log chance that an item enters a sample: as one of `n_targets` targets or among `n_drawn` uniform draws.

    counts: [n] events of each item.
    """
    share = counts / counts.sum()
    return torch.log(-torch.expm1(-(n_targets * share + n_drawn / len(counts))))


def _init(weight: Tensor) -> Tensor:
    return nn.init.normal_(weight, std=0.02)
