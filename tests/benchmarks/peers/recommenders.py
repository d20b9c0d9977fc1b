"""The peers: other people's recommenders, each behind `fit(log, config) -> scorer`.

A scorer takes users, int32 [n], and gives float32 [n, n_items]. A user without an event gets the most popular items
from every peer (`run.py`). Libraries are imported where they are used: one peer's process pays for no other.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
from queries import Log

Config = dict[str, Any]
Scorer = Callable[[np.ndarray], np.ndarray]
DAY = 86_400_000_000  # microseconds
CLOSED_FORM_ITEMS = 10_000
"""EASE inverts a matrix of items by items: past this many it knows the most popular ones only."""


def counts_of_items(log: Log, days: float | None = None) -> np.ndarray:
    """Events of each item in the newest `days`, float32 [n_items]."""
    recent = slice(None) if days is None else log.timestamps >= log.timestamps.max() - days * DAY
    return np.bincount(log.items[recent], minlength=log.n_items).astype(np.float32)


def popularity(log: Log, config: Config, threads: int, seed: int) -> Scorer:
    """Events of an item within a window; all events break ties."""
    counts = counts_of_items(log, config["days"])
    everything = counts_of_items(log)
    ranked = counts + everything / (1 + everything.max())
    return lambda users: np.tile(ranked, (len(users), 1))


def personal_popularity(log: Log, config: Config, threads: int, seed: int) -> Scorer:
    """What the user had most often, then what everybody had ("GP-TopFreq" in Li et al., TOIS 2023).

    Events may lose weight by half every `half_life` days, as the strong variants of that paper do.
    """
    ages = (log.timestamps.max() - log.timestamps) / DAY
    weights = np.ones(len(ages)) if config["half_life"] is None else 0.5 ** (ages / config["half_life"])
    shape = (log.n_users, log.n_items)
    personal = sp.coo_matrix((weights.astype(np.float32), (log.users, log.items)), shape=shape).tocsr()
    everybody = np.bincount(log.items, weights, log.n_items)
    tail = (1e-3 * personal.data.min() * everybody / everybody.max()).astype(np.float32)
    return lambda users: personal[users].toarray() + tail


def item_knn(log: Log, config: Config, threads: int, seed: int) -> Scorer:
    """Neighbours of items, from `implicit`."""
    from implicit.nearest_neighbours import BM25Recommender, CosineRecommender, TFIDFRecommender

    kinds = {"cosine": CosineRecommender, "tfidf": TFIDFRecommender, "bm25": BM25Recommender}
    model = kinds[config["likeness"]](K=config["neighbours"], num_threads=threads)
    model.fit(log.binary, show_progress=False)
    similarity = model.similarity
    return lambda users: (log.binary[users] @ similarity).toarray().astype(np.float32)


def ease(log: Log, config: Config, threads: int, seed: int) -> Scorer:
    """RecTools' EASE, over the most popular items where the catalogue is too large to invert."""
    import pandas as pd
    from rectools.dataset import Dataset
    from rectools.models import EASEModel

    counts = counts_of_items(log)
    known = np.sort(np.argsort(-counts, kind="stable")[:CLOSED_FORM_ITEMS])
    pairs = log.binary.tocoo()
    frame = pd.DataFrame({"user_id": pairs.row, "item_id": pairs.col, "weight": 1.0, "datetime": "2000-01-01"})
    dataset = Dataset.construct(frame[np.isin(frame.item_id, known)])
    model = EASEModel(regularization=config["regularization"], recommend_n_threads=threads)
    model.fit(dataset)
    items = dataset.item_id_map.external_ids.astype(np.int64)
    history = log.binary[:, items]

    def score(users: np.ndarray) -> np.ndarray:
        found = history[users] @ model.weight
        scores = np.tile(found.min(axis=1, keepdims=True) - 1, (1, log.n_items))
        scores += counts / (1 + counts.max())
        scores[:, items] = found
        return scores.astype(np.float32)

    return score


def ials(log: Log, config: Config, threads: int, seed: int) -> Scorer:
    """Alternating least squares of `implicit` (Hu, Koren and Volinsky, 2008)."""
    from implicit.cpu.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(
        factors=config["factors"],
        regularization=config["regularization"],
        alpha=config["alpha"],
        iterations=config["iterations"],
        num_threads=threads,
        random_state=seed,
    )
    matrix = log.binary
    if config.get("weights") == "log":
        matrix = log.counts.copy()
        matrix.data = np.log2(1 + matrix.data)
    model.fit(matrix, show_progress=False)
    return lambda users: model.user_factors[users] @ model.item_factors.T


def bpr(log: Log, config: Config, threads: int, seed: int) -> Scorer:
    """Bayesian personalised ranking of `implicit` (Rendle et al., 2009)."""
    from implicit.cpu.bpr import BayesianPersonalizedRanking

    model = BayesianPersonalizedRanking(
        factors=config["factors"],
        learning_rate=config["learning_rate"],
        regularization=config["regularization"],
        iterations=config["iterations"],
        num_threads=threads,
        random_state=seed,
    )
    model.fit(log.binary, show_progress=False)
    return lambda users: model.user_factors[users] @ model.item_factors.T


def warp(log: Log, config: Config, threads: int, seed: int) -> Scorer:
    """The WARP loss of LightFM (Weston, Bengio and Usunier, 2011)."""
    from lightfm import LightFM

    model = LightFM(
        no_components=config["factors"],
        loss="warp",
        learning_rate=config["learning_rate"],
        item_alpha=config["alpha"],
        user_alpha=config["alpha"],
        max_sampled=config["max_sampled"],
        random_state=seed,
    )
    model.fit(log.binary.tocoo(), epochs=config["epochs"], num_threads=threads)
    biases, items = model.get_item_representations()
    _, users_ = model.get_user_representations()
    return lambda users: (users_[users] @ items.T + biases).astype(np.float32)


FITS: dict[str, Callable[[Log, Config, int, int], Scorer]] = {
    "popularity": popularity,
    "personal-popularity": personal_popularity,
    "item-knn": item_knn,
    "ease": ease,
    "ials": ials,
    "bpr": bpr,
    "warp": warp,
}
