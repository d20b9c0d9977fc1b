"""Trials of a search as tasks, which any machine of the installation can do.

A task names the snapshot, which all machines see, and makes the same split of it as the run does. Only figures come
back. A process keeps the last split that it made, since the trials of a rung share it.
"""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from threadpoolctl import threadpool_limits

from feature_store.interaction_types import SeenPolicy
from pipelines.compute.port import Compute
from training.data.dataset import load_snapshot
from training.data.splits import Split, temporal_split
from training.models.contract import RuntimeOptions
from training.models.registry import family_class
from training.tuning.batches import EarlierTrial, GivenTrial, TrialOutcome
from training.tuning.halving import split_of_sample
from training.tuning.study import plain_fit, run_given_trial


@dataclass(frozen=True)
class SplitRecipe:
    """How the split of a search is made of a snapshot."""

    snapshot: Path  # folder
    max_events: int
    exclude_seen: SeenPolicy
    max_users: int
    seed: int  # of the sample of users, and of fits
    share: float = 1.0  # of the users, on whose events trials are fitted


@dataclass(frozen=True)
class TrialTask:
    """One configuration of a family to fit and judge."""

    recipe: SplitRecipe
    family: str
    number: int
    config: str  # JSON
    device: str
    threads: int
    max_seconds: float
    earlier: tuple[EarlierTrial, ...]


class SearchTasks:
    """The trials of one family's search (`training.tuning.batches.TrialTasks`)."""

    def __init__(self, compute: Compute, recipe: SplitRecipe, family: str, options: RuntimeOptions, batch: int) -> None:
        """recipe: of the split with all users; its seed is that of the options."""
        self.batch = batch
        self._compute, self._recipe, self._family, self._options = compute, recipe, family, options

    def run(self, share: float, trials: Sequence[GivenTrial]) -> Generator[TrialOutcome, None, None]:
        tasks = [
            TrialTask(
                recipe=replace(self._recipe, share=share),
                family=self._family,
                number=each.number,
                config=each.config.model_dump_json(),
                device=self._options.device,
                threads=self._options.threads,
                max_seconds=each.max_seconds,
                earlier=each.earlier,
            )
            for each in trials
        ]
        with closing(self._compute.map(judge_trial, tasks)) as outcomes:
            yield from outcomes


def judge_trial(task: TrialTask) -> TrialOutcome:
    """Fit and judge one configuration, as `run_study` does in the process of a run."""
    family, split = family_class(task.family), split_of(task.recipe)
    trial = GivenTrial(task.number, family.Config.model_validate_json(task.config), task.max_seconds, task.earlier)
    options = RuntimeOptions(device=task.device, threads=task.threads, seed=task.recipe.seed)
    with threadpool_limits(task.threads):
        return run_given_trial(trial, plain_fit(family, split), split, options, halving=task.recipe.share < 1)


@lru_cache(maxsize=1)
def split_of(recipe: SplitRecipe) -> Split:
    """The split of a search, as the run has it. This process keeps the last one."""
    dataset = load_snapshot(recipe.snapshot, recipe.max_events).served_by(recipe.exclude_seen)
    split = temporal_split(dataset, recipe.exclude_seen, max_users=recipe.max_users)
    return split if recipe.share == 1 else split_of_sample(split, recipe.share, recipe.seed)
