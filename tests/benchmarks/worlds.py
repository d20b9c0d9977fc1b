"""`python -m tests.benchmarks.worlds [NAME ...]`: linear families by their defaults alone on the generated data sets.

Prints NDCG@10 of each family under leave-one-out, full ranking, as rows of a table; `ease` is `collaborative` without
a choice, with the ridge and half-life that follow from the data.
"""

import sys

import numpy as np

from tests.fixtures.worlds import WORLDS, generate_world
from training.config import config_for
from training.data.profile import DataProfile
from training.data.splits import leave_one_out_split
from training.evaluation.rankings import rank_queries
from training.models.contract import RuntimeOptions
from training.models.registry import family_class

MAX_USERS = 2_000
MODELS = {
    "item-knn": ("item-knn", {}),
    "ease": ("collaborative", {"method": "ease"}),
    "collaborative": ("collaborative", {}),
    "content-based": ("content-based", {}),
}


def row(name: str) -> str:
    """The figures of one world. The choices are made before the validation events, as in a training."""
    split = leave_one_out_split(generate_world(WORLDS[name]), max_users=MAX_USERS)
    profile, options = DataProfile.of(split.train), RuntimeOptions(threads=1)
    ndcg, chosen = {}, ""
    for model, (family, overrides) in MODELS.items():
        fitted = family_class(family)(config_for(family, profile, overrides)).fit(split.train, options)
        refitted = fitted.refit(split.before_test, options)
        ndcg[model] = rank_queries(refitted, split.test).per_user["ndcg@10"]
        chosen = refitted.record()["method"] if model == "collaborative" else chosen
    difference = ndcg["collaborative"] - ndcg["item-knn"]
    error = difference.std() / np.sqrt(len(difference))
    figures = " | ".join(f"{values.mean():.4f}" for values in ndcg.values())
    return f"| {name} | {len(difference)} | {figures} | {difference.mean():+.4f} ± {1.96 * error:.4f} | {chosen} |"


if __name__ == "__main__":
    for world in sys.argv[1:] or WORLDS:
        print(row(world), flush=True)
