"""The `deep-learning` family: a sequential two-tower model (user tower = transformer, item tower = id + content).

Reading order of this package:

    config               hyper-parameters
    defaults             their values for a data set, as functions of its profile
    network              the item tower, the user tower and their transformer blocks
    packing              a batch of histories without padding, as the user tower reads it when serving
    encoded_content      content of items as vectors, in a file where there are many
    user_vectors         from histories to user vectors
    recent_popularity    popularity of items at a time, which the user vector weighs
    repeat_consumption   what an item gains from the user's earlier events with it
    model (this module)  scores, explains, saves and loads
    attribution          which events a score depends on, and whether occlusion agrees
    layers               the layers of the user tower in NumPy, with their gradients
    inference            the user tower and its attribution for one history, of these layers
    scoring              scores and evidence of a request, by `inference`
    stages               the stages of a fit: with a hold-out, then on all events; scoring uses nothing below this line
    sequences            training sequences and batches
    steps                from a batch to the tensors of a step: candidates, id dropout, log q
    task, softmax        the loss over a step, with history bias, history mask and trend logits
    loop                 optimiser, schedule, weight averaging, early stopping
    validation           NDCG of held-out events during training
    checkpoint           state of an interrupted fit
    strategy             what one process and several do differently
    divided_tables       rows of tables that no process makes whole
    sharding             the strategy of several processes, with TorchRec
    shared_data          files that the processes of one fit read
    network_fit          one run of the loop, and its arguments and result as files
    distributed          sends a run to the processes of `torchrun`, or to a group that is started for it
    workload             what a fit costs, counted before it starts

docs/models-log.md has what was tried and measured.
"""

import copy
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from feature_store.online import Histories
from training.data.dataset import Dataset
from training.data.profile import DataProfile
from training.data.splits import Holdout
from training.models.content_based.encoder import ContentEncoder
from training.models.contract import FloatMatrix, Positions, Recommender, RuntimeOptions
from training.models.deep_learning import attribution
from training.models.deep_learning.attribution import Fidelity, FloatVector
from training.models.deep_learning.config import DeepLearningConfig
from training.models.deep_learning.defaults import default_values
from training.models.deep_learning.encoded_content import ENCODED_AT_ONCE, encoded_content
from training.models.deep_learning.inference import HistoryEncoder
from training.models.deep_learning.network import Network, scores
from training.models.deep_learning.recent_popularity import recent_popularity
from training.models.deep_learning.repeat_consumption import add_repeat_scores, learns_repeats, repeat_scores
from training.models.deep_learning.scoring import SequentialScoring
from training.models.deep_learning.stages import continue_network, fit_network, hold_out, padded_ids, reproducible
from training.models.deep_learning.user_vectors import user_vectors
from training.models.deep_learning.workload import deep_learning_workload
from training.models.default_values import family_values
from training.models.lists import NO_ITEM, Contributions, ListContributions, top_k
from training.models.workload import DataSizes, Workload

DESCRIPTION_FILE = "deep_learning.json"
WEIGHTS_FILE = "weights.safetensors"
CONTENT_FOLDER = "content"
HISTORIES_ENCODED_AT_ONCE = 256
"""Histories encoded at once; bounds the memory of attention."""

_EARLIER_TENSORS = {"users.trend.": "users.popularity_weights.", "again.": "repeat_consumption."}
"""Prefixes of tensor names that earlier versions saved -> the present ones."""
_LEAST_SHARE = 0.1
"""Share of the time of a fit that is left for steps, however long content took to encode."""
_FIDELITY_USERS = 100
_FIDELITY_ITEMS = 10  # as long as a served list


class DeepLearning(Recommender):
    """A causal transformer over a user's newest events, and item vectors made of an id and of content.

    `fit` holds every user's last event out (with a horizon: the newest window), stops early on its NDCG, then continues
    for a few epochs on all events at a low learning rate. The vector of an empty history is that of the learned start
    token alone, so a new user gets what users choose first.
    """

    family = "deep-learning"
    Config = DeepLearningConfig
    imports: ClassVar[Mapping[str, tuple[float, float]]] = {
        "sklearn.utils.extmath": (1.8, 40.0),
        "torchrec": (4.5, 350.0),
    }
    config: DeepLearningConfig
    encoder: ContentEncoder
    network: Network  # on the CPU, frozen, in evaluation mode
    ids: Tensor  # float32 [n_items, d], zero where an item had no event
    items: Tensor  # float32 [n_items, d] id plus projected content: the input vector of a history's events
    targets: Tensor  # float32 [n_items, d + k] `items` beside the latest recent popularity, for the dot product
    strengths: Tensor | None  # float32 [n_items, m] of repeat consumption; None where users repeat no items
    fidelity: Fidelity  # of the contributions
    training: dict[str, Any]  # record of the last fit: losses, validation NDCG, epochs
    _encoder_of: tuple[Network, HistoryEncoder] | None = None
    """The user tower for serving, with the network that it was made of."""

    @classmethod
    def default_config(cls, profile: DataProfile) -> DeepLearningConfig:
        return DeepLearningConfig.model_validate({**family_values(cls.family), **default_values(profile)})

    def fit(self, dataset: Dataset, options: RuntimeOptions) -> Self:
        if not len(dataset.interactions):
            raise ValueError("a sequential model cannot be learned without interactions: record some first")
        began = time.perf_counter()
        self.encoder = ContentEncoder(self.config.content).fit(dataset.items.metadata, options.seed)
        with reproducible(options):
            self.network = Network(self.encoder.dimensions, self.config)
            content = encoded_content(self.encoder, dataset.items.metadata, dataset.interactions.spool)
            left = options.max_seconds - (time.perf_counter() - began)
            options = replace(options, max_seconds=max(left, _LEAST_SHARE * options.max_seconds))
            ids, self.training = fit_network(self.network, content, dataset, self.config, options)
            self._finish(ids, content, dataset)
        return self

    def refit(self, dataset: Dataset, options: RuntimeOptions) -> Self:
        """A model that continues from this one's weights for `refit_epochs`, over events that include those it knows.

        A new fit would take many times as long and gain little. Evaluation applies the same procedure, so the reported
        figures are those of a refitted model.
        """
        model = copy.copy(self)
        model.network = copy.deepcopy(self.network).requires_grad_(True)
        with reproducible(options):
            content = encoded_content(self.encoder, dataset.items.metadata, dataset.interactions.spool)
            ids, model.training = continue_network(
                model.network,
                padded_ids(self.ids, dataset.n_items),
                content,
                dataset,
                self.config,
                options,
                dict(self.training),
            )
            model._finish(ids, content, dataset)
        return model

    def _finish(self, ids: FloatMatrix, content: FloatMatrix, dataset: Dataset) -> None:
        """Precompute what scoring reads, and measure how well contributions agree with occlusion."""
        self.ids = torch.from_numpy(ids)
        self.items = self._vectors(self.ids, content)
        repeats = learns_repeats(dataset, self.config)
        self.strengths = self._strengths(self.items) if repeats else None
        latest = recent_popularity(dataset.interactions, dataset.n_items, self.config.popularity_half_lives).latest
        self.targets = torch.cat([self.items, torch.from_numpy(latest)], dim=1)
        self.fidelity = Fidelity(threshold=0.0, agreement=None, pairs=0)
        self.fidelity = self._measure_fidelity(hold_out(dataset, self.config, _FIDELITY_USERS).test)

    @classmethod
    def workload(
        cls,
        sizes: DataSizes,
        config: DeepLearningConfig,
        refit: bool = False,
        base_models: Mapping[str, Workload] | None = None,
    ) -> Workload:
        return deep_learning_workload(sizes, config, refit)

    def record(self) -> dict[str, Any]:
        agreement = {
            "attribution_agreement": self.fidelity.agreement,
            "attribution_trusted": self.fidelity.threshold is not None,
        }
        return {**self.training, **agreement}

    @property
    def n_items(self) -> int:
        return len(self.items)

    def score(self, histories: Histories, candidates: Positions | None = None) -> FloatMatrix:
        self._check(histories)
        items = self.targets if candidates is None else self.targets[torch.from_numpy(candidates.astype(np.int64))]
        with torch.inference_mode():
            found = scores(self._users(histories), items).numpy()
        self.add_repeat_scores(found, histories, candidates)
        return found

    def scoring(self, histories: Histories) -> SequentialScoring:
        self._check(histories)
        if self._encoder_of is None or self._encoder_of[0] is not self.network:
            self._encoder_of = self.network, HistoryEncoder(self.network.users, self.network.types)
        return SequentialScoring(self, self._encoder_of[1], histories)

    def add_repeat_scores(self, scores: FloatMatrix, histories: Histories, candidates: Positions | None = None) -> None:
        """Add the gain from repeat consumption, where it was learned, to scores as `score` returns them, in place."""
        if self.strengths is not None:
            add_repeat_scores(scores, histories, self.network.repeat_consumption, self.strengths, candidates)

    def item_vectors(self) -> FloatMatrix:
        lengths = self.items.norm(dim=1, keepdim=True)
        return torch.where(lengths > 0, self.items / lengths.clamp(min=1e-12), 0.0).numpy()

    def vector_norms(self) -> FloatMatrix:
        return self.items.norm(dim=1).numpy()

    def explain(self, histories: Histories, items: Positions) -> list[Contributions]:
        return [attribution.to_item(found, 0) for found in self.explain_lists(histories, items[:, None])]

    def explain_lists(self, histories: Histories, items: Positions) -> list[ListContributions]:
        """Positive contributions above the fidelity threshold; none where occlusion did not confirm them."""
        self._check(histories)
        if self.fidelity.threshold is None:
            return self.no_contributions(items)
        explained = []
        for start in range(0, len(histories), HISTORIES_ENCODED_AT_ONCE):
            rows = np.arange(start, min(start + HISTORIES_ENCODED_AT_ONCE, len(histories)))
            listed = torch.from_numpy(items[rows].T.astype(np.int64))  # [k, rows]
            wanted = self.targets[listed] * (listed != NO_ITEM).unsqueeze(-1)
            batch = histories.take(rows)
            gradients = attribution.presence_gradients(
                self.network.users, batch, wanted, self.items, self.network.types, self.config.max_length
            )
            explained += self.contributions_of(batch, items[rows], gradients)
        return explained

    def contributions_of(
        self, histories: Histories, items: Positions, gradients: FloatMatrix
    ) -> list[ListContributions]:
        """The contributions above the fidelity threshold, of a model that explains.

        items: int32 [b, k]; gradients: float32 [k, b, l] of the presence of the newest events of each history.
        """
        threshold = max(self.fidelity.threshold or 0.0, float(np.finfo(np.float32).tiny))
        if self.strengths is not None:
            gains = repeat_scores(histories, items, self.network.repeat_consumption, self.strengths)
            gradients = attribution.with_repeats(gradients, histories, items, gains, self.config.max_length)
        return [
            attribution.contributions(histories.items[start:end], gradients[:, row], threshold)
            for row, (start, end) in enumerate(pairwise(histories.offsets.tolist()))
        ]

    def no_contributions(self, items: Positions) -> list[ListContributions]:
        """What a model that explains nothing gives for each row. items: int32 [b, k]."""
        return [ListContributions(np.empty(0, np.int32), np.empty((0, items.shape[1]), np.float32)) for _ in items]

    def with_items(self, positions: Positions, metadata: Sequence[dict[str, Any]]) -> Self:
        if not len(positions):
            return self
        added = int((positions >= self.n_items).sum())
        if not np.array_equal(positions[len(positions) - added :], np.arange(self.n_items, self.n_items + added)):
            raise ValueError(f"new items must take the positions from {self.n_items} on without a gap")
        model = copy.copy(self)
        index = torch.from_numpy(positions.astype(np.int64))
        model.ids = torch.cat([self.ids, self.ids.new_zeros(added, self.ids.shape[1])])
        model.items = torch.cat([self.items, self.items.new_zeros(added, self.items.shape[1])])
        model.items[index] = self._vectors(model.ids[index], self.encoder.transform(metadata))
        popularity = self.targets[:, self.items.shape[1] :]
        popularity = torch.cat([popularity, popularity.new_zeros(added, popularity.shape[1])])
        model.targets = torch.cat([model.items, popularity], dim=1)
        if self.strengths is not None:
            model.strengths = model._strengths(model.items)
        return model

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        weights = {f"network.{name}": value.contiguous() for name, value in self.network.state_dict().items()}
        save_file({**weights, "ids": self.ids, "targets": self.targets}, path / WEIGHTS_FILE)
        self.encoder.save(path / CONTENT_FOLDER)
        description = {
            "config": self.config.model_dump(mode="json"),
            "repeats": self.strengths is not None,
            "attribution": asdict(self.fidelity),
            "training": self.training,
        }
        (path / DESCRIPTION_FILE).write_text(json.dumps(description, indent=2))

    @classmethod
    def load(cls, path: Path) -> Self:
        description = json.loads((path / DESCRIPTION_FILE).read_text())
        model = cls(DeepLearningConfig.model_validate(description["config"]))
        model.encoder = ContentEncoder.load(path / CONTENT_FOLDER)
        weights = load_file(path / WEIGHTS_FILE)
        model.ids, model.targets = weights.pop("ids"), weights.pop("targets")
        model.items = model.targets[:, : model.config.dimensions].contiguous()
        model.network = Network(model.encoder.dimensions, model.config)
        model.network.load_state_dict({_present_name(name): value for name, value in weights.items()})
        model.network.eval().requires_grad_(False)
        model.strengths = model._strengths(model.items) if description["repeats"] else None
        model.fidelity = Fidelity(**description["attribution"])
        model.training = description["training"]
        return model

    def _vectors(self, ids: Tensor, content: FloatMatrix) -> Tensor:
        """Item vectors [n, d]. ids: [n, d]; content: float32 [n, content_width]."""
        vectors = []
        with torch.inference_mode():
            for start in range(0, max(1, len(ids)), ENCODED_AT_ONCE):
                part = ids[start : start + ENCODED_AT_ONCE]
                read = torch.tensor(content[start : start + ENCODED_AT_ONCE])
                vectors.append(self.network.items(part, read, torch.ones(len(part))))
        return torch.cat(vectors).clone()

    def _strengths(self, items: Tensor) -> Tensor:
        """Strengths of repeat consumption [n, m]. items: [n, d] item vectors."""
        with torch.inference_mode():
            strengths = self.network.repeat_consumption.strength(items)
        return strengths.clone()

    def _users(self, histories: Histories) -> Tensor:
        """User vectors, [b, d + k]."""
        parts = [
            user_vectors(
                self.network.users,
                histories.take(np.arange(start, min(start + HISTORIES_ENCODED_AT_ONCE, len(histories)))),
                self.items,
                self.network.types,
                self.config.max_length,
            )
            for start in range(0, len(histories), HISTORIES_ENCODED_AT_ONCE)
        ]
        return torch.cat(parts) if parts else self.targets.new_zeros(0, self.targets.shape[1])

    def _check(self, histories: Histories) -> None:
        if len(histories.items) and histories.items.max() >= self.n_items:
            raise IndexError(f"a history names an item outside the catalogue of {self.n_items}")

    def _measure_fidelity(self, queries: Holdout) -> Fidelity:
        """Compare contributions with occlusion on the lists that this model would recommend for the queries."""
        if not len(queries):
            return Fidelity(None, None, 0)
        scored = np.where(queries.masked.toarray(), -np.inf, self.score(queries.histories))
        ranked = top_k(scored, _FIDELITY_ITEMS).items

        def score_pairs(histories: Histories, items: Positions) -> FloatVector:
            with torch.inference_mode():
                found = (self._users(histories) * self.targets[torch.from_numpy(items.astype(np.int64))]).sum(1).numpy()
            if self.strengths is not None:
                found += repeat_scores(histories, items[:, None], self.network.repeat_consumption, self.strengths)[:, 0]
            return found

        ranked = ranked[:, (ranked != NO_ITEM).all(axis=0)]
        explained = self.explain_lists(queries.histories, ranked)
        return attribution.measure_fidelity(explained, score_pairs, queries.histories, ranked)


def _present_name(stored: str) -> str:
    """The network's name of a stored tensor, whichever version saved it."""
    name = stored.removeprefix("network.")
    for earlier, present in _EARLIER_TENSORS.items():
        if name.startswith(earlier):
            return present + name.removeprefix(earlier)
    return name
