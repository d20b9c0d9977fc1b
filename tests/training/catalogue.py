"""A small world with structure: genres of films, users who keep to one genre, hits and rarities in each."""

import numpy as np

from feature_store.interaction_types import TYPE_CODES
from feature_store.online import Histories
from training.data.dataset import Dataset, Interactions, ItemTable

GENRES = ("western", "romance", "horror", "space")
WORDS = {
    "western": ("saddle", "sheriff", "canyon", "rodeo"),
    "romance": ("wedding", "letters", "paris", "kiss"),
    "horror": ("grave", "scream", "cellar", "midnight"),
    "space": ("orbit", "galaxy", "rocket", "comet"),
}
PER_GENRE = 30
N_ITEMS = PER_GENRE * len(GENRES)
N_USERS = 131  # a prime that no other dimension of a model has
FAVOURITES = (0, 0, 0, 0, 1, 1, 1, 2, 2, 3)
"""Genres of the users in turn: some have a larger public."""
DAY = 86_400_000_000


def genre_of(item: int) -> int:
    """Items of all genres alternate, so that no order of positions gives a genre away."""
    return item % len(GENRES)


def items_of(genre: int) -> np.ndarray:
    """Positions of a genre's items, most chosen first."""
    return np.arange(genre, N_ITEMS, len(GENRES), dtype=np.int32)


def metadata_of(genre: int, number: int) -> dict[str, object]:
    words = WORDS[GENRES[genre]]
    title = f"{words[number % 4]} {words[(number // 4 + 1) % 4]} {number}"
    return {"title": title, "genres": [GENRES[genre]], "details": {"year": 1950 + genre * 15 + number % 7}}


def build_dataset(seed: int = 0) -> Dataset:
    """131 users, 120 items, 8 to 20 events each within 100 days; nine of ten events in the user's own genre."""
    rng = np.random.default_rng(seed)
    chance = 1 / (np.arange(PER_GENRE) + 3.0)
    chance /= chance.sum()
    users, items, times = [], [], []
    for user in range(N_USERS):
        own = FAVOURITES[user % len(FAVOURITES)]
        n = int(rng.integers(8, 21))
        genres = np.where(rng.random(n) < 0.9, own, rng.integers(0, len(GENRES), n))
        chosen = [int(items_of(int(genre))[rng.choice(PER_GENRE, p=chance)]) for genre in genres]
        event_times = np.sort(rng.integers(0, 100 * DAY, n))
        users += [user] * n
        items += chosen
        times += event_times.tolist()
    columns = (np.array(users, np.int32), np.array(items, np.int32))
    types = rng.choice([TYPE_CODES["click"], TYPE_CODES["like"], TYPE_CODES["purchase"]], len(users)).astype(np.int8)
    weights = np.array([0, 0.5, 0.8, 1.0], np.float32)[types]
    timestamps = np.array(times, np.int64)
    order = np.lexsort((columns[1], timestamps, columns[0]))
    events = Interactions(columns[0], columns[1], types, weights, timestamps).where(order)
    metadata = [metadata_of(genre_of(item), item // len(GENRES)) for item in range(N_ITEMS)]
    ids = np.array([f"film-{item}" for item in range(N_ITEMS)], dtype=object)
    return Dataset(events, ItemTable(ids, metadata, np.ones(N_ITEMS, bool)), N_USERS, "small-world")


def histories(*rows: list[int]) -> Histories:
    """Likes of these items, a day apart, one history a row."""
    items = np.array([item for row in rows for item in row], dtype=np.int32)
    offsets = np.cumsum([0, *(len(row) for row in rows)]).astype(np.int64)
    times = np.concatenate([np.arange(len(row)) * DAY for row in rows] or [[]]).astype(np.int64)
    return Histories(
        items,
        np.full(len(items), TYPE_CODES["like"], np.int8),
        np.full(len(items), 0.8, np.float32),
        times,
        offsets,
    )
