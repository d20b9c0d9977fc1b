"""The `deep-learning` family: a sequential two-tower model. Scores, explains and saves; `loop` trains it."""

import copy
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from feature_store.interaction_types import SeenPolicy
from feature_store.online import Histories
from training.data.dataset import Dataset
from training.data.splits import Holdout, Split, leave_one_out_split, temporal_split
from training.models.content_based.encoder import ContentEncoder
from training.models.contract import (
    NO_ITEM,
    Contributions,
    FloatMatrix,
    ListContributions,
    Positions,
    Recommender,
    RuntimeOptions,
    top_k,
)
from training.models.deep_learning import attribution
from training.models.deep_learning.attribution import FloatVector, Trust
from training.models.deep_learning.config import DeepLearningConfig
from training.models.deep_learning.network import Network, scores
from training.models.deep_learning.recent_popularity import trends
from training.models.deep_learning.repeat_consumption import add_again, again_of, repeats_count
from training.models.deep_learning.user_vectors import user_vectors

DESCRIPTION_FILE = "deep_learning.json"
WEIGHTS_FILE = "weights.safetensors"
CONTENT_FOLDER = "content"
BATCH = 256
"""Histories encoded at once; bounds the memory of attention."""

_VALIDATED_SHARE = 0.8  # of a fit's time, the rest is for the pass over all events
_MIN_VALIDATION_USERS = 20
_WINDOW = 0.05  # of the events, the newest, which validate a model of a span ahead
_MEASURED_USERS = 100
_MEASURED_ITEMS = 10  # as long as a list that serves


class DeepLearning(Recommender):
    """A causal transformer over a user's newest events meets item vectors made of an id and of content.

    `fit` holds every user's last event out, stops early on its NDCG, then gives the held-out events back for a few
    epochs at a low rate. An empty history is the learned start alone, so a new user gets what users start with.
    """

    family = "deep-learning"
    Config = DeepLearningConfig
    config: DeepLearningConfig
    encoder: ContentEncoder
    network: Network  # on the CPU, frozen, in evaluation mode
    ids: Tensor  # float32 [n_items, d], zero where an item had no event
    items: Tensor  # float32 [n_items, d] ids and projected content together, as events of a history are read
    targets: Tensor  # float32 [n_items, d + k] the same beside the latest trends, as scores are taken
    strengths: Tensor | None  # float32 [n_items, m] of repetition; None where people choose nothing again
    trust: Trust  # in `explain`
    training: dict[str, Any]  # what the last fit went through: losses, validation, epochs

    def fit(self, dataset: Dataset, options: RuntimeOptions) -> Self:
        if not len(dataset.interactions):
            raise ValueError("a sequential model cannot be learned without interactions: record some first")
        self.encoder = ContentEncoder(self.config.content).fit(dataset.items.metadata, options.seed)
        with _reproducible(options):
            self.network = Network(self.encoder.dimensions, self.config)
            self._train(dataset, options, warm=False)
        return self

    def refit(self, dataset: Dataset, options: RuntimeOptions) -> Self:
        """A model that goes on from this one's weights for `refit_epochs` over events that include those it knows.

        Anew would cost a whole fit for little; what is measured of a refitted model is measured of this procedure.
        """
        model = copy.copy(self)
        model.network = copy.deepcopy(self.network).requires_grad_(True)
        with _reproducible(options):
            model._train(dataset, options, warm=True)
        return model

    def _train(self, dataset: Dataset, options: RuntimeOptions, warm: bool) -> None:
        from training.models.deep_learning.distributed import Fit, learn  # torchrec: only who trains pays for it

        config = self.config
        content = self.encoder.transform(dataset.items.metadata)
        seconds = options.max_seconds
        ids: FloatMatrix | None = None
        self.network.types.requires_grad_(False)
        if warm:
            ids = np.zeros((dataset.n_items, config.dimensions), np.float32)
            ids[: len(self.ids)] = self.ids.numpy()
            self.training = {**self.training}
        else:
            split = self._hold_out(dataset, max_users=1_000)
            validated = len(split.test) >= _MIN_VALIDATION_USERS
            progress, ids = learn(
                Fit(
                    self.network,
                    None,
                    content,
                    split.before_test if validated else dataset,
                    config,
                    options,
                    "fit",
                    config.epochs,
                    config.learning_rate,
                    seconds * _VALIDATED_SHARE,
                    split.test if validated else None,
                )
            )
            self.training = {**asdict(progress), "parameters": sum(p.numel() for p in self.network.parameters())}
            seconds *= 1 - _VALIDATED_SHARE
        if config.refit_epochs:
            stage = "refit" if warm else "held-out"
            progress, ids = learn(
                Fit(
                    self.network,
                    ids,
                    content,
                    dataset,
                    config,
                    options,
                    stage,
                    config.refit_epochs,
                    config.refit_learning_rate,
                    seconds,
                )
            )
            self.training["refit_losses"] = progress.losses
        self.network.requires_grad_(False)
        self.ids = torch.from_numpy(ids)
        self.items = self._vectors(self.ids, content)
        again = repeats_count(dataset.interactions, config)
        self.strengths = self._strengths(self.items) if again else None
        latest = trends(dataset.interactions, dataset.n_items, config.trend_half_lives).latest
        self.targets = torch.cat([self.items, torch.from_numpy(latest)], dim=1)
        self.trust = Trust(threshold=0.0, agreement=None, pairs=0)
        self.trust = self._measure_trust(self._hold_out(dataset, max_users=_MEASURED_USERS).test)

    def _hold_out(self, dataset: Dataset, max_users: int) -> Split:
        """What a fit is validated on: a window at the end where states are asked for one, else last events."""
        mask: SeenPolicy = "none" if repeats_count(dataset.interactions, self.config) else "all"
        if self.config.horizon_days is None:
            return leave_one_out_split(dataset, mask, max_users)
        return temporal_split(dataset, mask, _WINDOW, _WINDOW, max_users)

    def record(self) -> dict[str, Any]:
        agreement = {
            "attribution_agreement": self.trust.agreement,
            "attribution_trusted": self.trust.threshold is not None,
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
        if self.strengths is not None:
            add_again(found, histories, self.network.again, self.strengths, candidates)
        return found

    def item_vectors(self) -> FloatMatrix:
        lengths = self.items.norm(dim=1, keepdim=True)
        return torch.where(lengths > 0, self.items / lengths.clamp(min=1e-12), 0.0).numpy()

    def explain(self, histories: Histories, items: Positions) -> list[Contributions]:
        return [attribution.to_item(found, 0) for found in self.explain_lists(histories, items[:, None])]

    def explain_lists(self, histories: Histories, items: Positions) -> list[ListContributions]:
        """Trusted contributions only, positive ones; of a long list along its main directions (`attribution`)."""
        self._check(histories)
        if self.trust.threshold is None:
            return [ListContributions(np.empty(0, np.int32), np.empty((0, items.shape[1]), np.float32)) for _ in items]
        threshold = max(self.trust.threshold, float(np.finfo(np.float32).tiny))
        explained = []
        for start in range(0, len(histories), BATCH):
            rows = np.arange(start, min(start + BATCH, len(histories)))
            listed = torch.from_numpy(items[rows].T.astype(np.int64))  # [k, rows]
            wanted = self.targets[listed] * (listed != NO_ITEM).unsqueeze(-1)
            batch = histories.take(rows)
            gradients = attribution.presence_gradients(
                self.network.users, batch, wanted, self.items, self.network.types, self.config.max_length
            )
            if self.strengths is not None:
                added = again_of(batch, items[rows], self.network.again, self.strengths)
                gradients = self._with_repetition(gradients, batch, items[rows], added)
            for row in range(len(rows)):
                events = batch.items[batch.offsets[row] : batch.offsets[row + 1]]
                explained.append(attribution.contributions(events, gradients[:, row], threshold))
        return explained

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
        trends_of = self.targets[:, self.items.shape[1] :]
        trends_of = torch.cat([trends_of, trends_of.new_zeros(added, trends_of.shape[1])])  # nobody has chosen them yet
        model.targets = torch.cat([model.items, trends_of], dim=1)
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
            "attribution": asdict(self.trust),
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
        model.network.load_state_dict({name.removeprefix("network."): value for name, value in weights.items()})
        model.network.eval().requires_grad_(False)
        model.strengths = model._strengths(model.items) if description["repeats"] else None
        model.trust = Trust(**description["attribution"])
        model.training = description["training"]
        return model

    def _vectors(self, ids: Tensor, content: FloatMatrix) -> Tensor:
        with torch.inference_mode():
            vectors = self.network.items(ids, torch.tensor(content), torch.ones(len(ids)))
        return vectors.clone()

    def _strengths(self, items: Tensor) -> Tensor:
        with torch.inference_mode():
            strengths = self.network.again.strength(items)
        return strengths.clone()

    def _with_repetition(
        self, gradients: FloatMatrix, histories: Histories, items: Positions, added: FloatMatrix
    ) -> FloatMatrix:
        """Gradients [k, b, l] over the whole histories, [k, b, longest], with what repetition adds for an item at the
        newest of its own events: without it, that is gone altogether.

        items: int32 [b, k], the answers. added: [b, k], what repetition adds to their scores.
        """
        lengths = histories.lengths
        whole = np.zeros((len(gradients), len(histories), int(lengths.max(initial=0))), dtype=np.float32)
        for row, length in enumerate(lengths):
            read = min(int(length), self.config.max_length)
            whole[:, row, length - read : length] = gradients[:, row, :read]
            events = histories.items[histories.offsets[row] : histories.offsets[row + 1]]
            answers, places = np.nonzero(items[row][:, None] == events)
            newest = np.full(len(added[row]), -1)
            newest[answers] = places  # the last one written is the newest
            held = np.flatnonzero(newest >= 0)
            whole[held, row, newest[held]] += added[row, held]
        return whole

    def _users(self, histories: Histories) -> Tensor:
        parts = [
            user_vectors(
                self.network.users,
                histories.take(np.arange(start, min(start + BATCH, len(histories)))),
                self.items,
                self.network.types,
                self.config.max_length,
            )
            for start in range(0, len(histories), BATCH)
        ]
        return torch.cat(parts) if parts else self.targets.new_zeros(0, self.targets.shape[1])

    def _check(self, histories: Histories) -> None:
        if len(histories.items) and histories.items.max() >= self.n_items:
            raise IndexError(f"a history names an item outside the catalogue of {self.n_items}")

    def _measure_trust(self, questions: Holdout) -> Trust:
        """Judge attribution on what this model would answer: the best unseen items of each question."""
        if not len(questions):
            return Trust(None, None, 0)
        scored = np.where(questions.masked.toarray(), -np.inf, self.score(questions.histories))
        answers = top_k(scored, _MEASURED_ITEMS).items

        def score_pairs(histories: Histories, items: Positions) -> FloatVector:
            with torch.inference_mode():
                found = (self._users(histories) * self.targets[torch.from_numpy(items.astype(np.int64))]).sum(1).numpy()
            if self.strengths is not None:
                found += again_of(histories, items[:, None], self.network.again, self.strengths)[:, 0]
            return found

        listed = answers[:, (answers != NO_ITEM).all(axis=0)]
        explained = self.explain_lists(questions.histories, listed)
        return attribution.measure(explained, score_pairs, questions.histories, listed)


@contextmanager
def _reproducible(options: RuntimeOptions) -> Iterator[None]:
    """Seeded draws and a fixed number of threads inside, the process's own again afterwards."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        torch.set_num_threads(options.threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
