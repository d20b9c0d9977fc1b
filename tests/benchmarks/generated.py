"""Data sets that no formula was fitted to: sparse, dense, and with long histories that repeat themselves."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from training.data.dataset import Dataset, from_events

_WORDS, _WORDS_OF_TITLE, _TAGS_OF_ITEM = 400, 5, 3
_MICROS_OF_LOG = 200 * 86_400_000_000


@dataclass(frozen=True)
class Recipe:
    users: int
    items: int
    mean_events: int  # of a user, geometric
    skew: float  # popularity of an item falls with this power of its rank
    repeats: float  # share of events that repeat the user's event before
    tags: int
    seed: int


RECIPES = {
    "sparse": Recipe(30_000, 22_000, mean_events=6, skew=0.8, repeats=0.0, tags=200, seed=1),
    "dense": Recipe(1_500, 600, mean_events=120, skew=0.6, repeats=0.0, tags=20, seed=2),
    "long": Recipe(300, 5_000, mean_events=1_000, skew=0.7, repeats=0.3, tags=50, seed=3),
}


def generate(recipe: Recipe) -> Dataset:
    """Events at random moments and items with a title, tags and a price; the seed decides all of it."""
    rng = np.random.default_rng(recipe.seed)
    lengths = np.maximum(3, rng.geometric(1 / recipe.mean_events, recipe.users))
    users = np.repeat(np.arange(recipe.users), lengths)
    chances = (np.arange(recipe.items) + 5.0) ** -recipe.skew
    chosen = rng.permutation(recipe.items)[rng.choice(recipe.items, len(users), p=chances / chances.sum())]
    same_user = np.concatenate(([False], users[1:] == users[:-1]))
    chosen = np.where(same_user & (rng.random(len(users)) < recipe.repeats), np.roll(chosen, 1), chosen)
    events = pd.DataFrame(
        {
            "user_id": users.astype(str),
            "item_id": np.char.add("i", chosen.astype(str)),
            "timestamp": rng.integers(10**15, 10**15 + _MICROS_OF_LOG, len(users)),
        }
    )
    words = rng.integers(0, _WORDS, (recipe.items, _WORDS_OF_TITLE))
    tags = rng.integers(0, recipe.tags, (recipe.items, _TAGS_OF_ITEM))
    prices = rng.random(recipe.items) * 100
    metadata = [
        {
            "title": " ".join(f"w{word}" for word in words[item]),
            "tags": [f"t{tag}" for tag in tags[item]],
            "price": float(prices[item]),
        }
        for item in range(recipe.items)
    ]
    items = pd.DataFrame({"item_id": [f"i{item}" for item in range(recipe.items)], "metadata": metadata})
    return from_events(events, items)
