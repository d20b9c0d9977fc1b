"""What the assets `configuration` do, without Dagster: search, compare, and keep what was found in MLflow."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from threadpoolctl import threadpool_limits

from pipelines.defs.training.configurations import ChosenConfiguration, chosen_configuration
from pipelines.defs.training.families import base_models_of
from pipelines.defs.training.steps import TrainingRun
from pipelines.defs.tuning.records import SearchRecord
from pipelines.defs.tuning.tasks import SearchTasks, SplitRecipe
from training.data.splits import Split
from training.evaluation.stored_config import UnreadableConfig
from training.models.contract import ModelConfig
from training.tracking.searches import newest_search, store_search, tuning_experiment
from training.tracking.study_run import StudyRun, study_run
from training.tracking.versions import UnreadableReportError
from training.tuning.family_search import search_family
from training.tuning.halving import SearchStoppedError
from training.tuning.results import StudyResult, TrialResult
from training.tuning.search_space import load_space
from training.tuning.study import as_yaml

PROMISING = 3
"""Configurations that the next search tries again."""
SEED = 0


@dataclass(frozen=True)
class SearchOutcome:
    """What a search came to."""

    record: SearchRecord
    summary: str
    base_source: str  # where the configuration that it began with comes from
    trials: tuple[TrialResult, ...]
    result: StudyResult | None  # None: no configuration was fitted on the events of all users
    minutes: float


class StopOnce:
    """A signal that stays on. It is asked at most every few seconds, since an answer costs queries."""

    def __init__(self, reason: Callable[[], str], every_seconds: float = 5.0) -> None:
        """reason: why the search has to end; empty where it may go on."""
        self._reason, self._every = reason, every_seconds
        self._asked = -float("inf")
        self.reason = ""

    def __call__(self) -> bool:
        if not self.reason and time.monotonic() - self._asked >= self._every:
            self.reason = self._reason()
            self._asked = time.monotonic()
        return bool(self.reason)


def search_configuration(
    run: TrainingRun,
    family: str,
    *,
    minutes: float,
    earlier: SearchRecord | None,
    stop: StopOnce,
    tags: Mapping[str, str],
) -> SearchOutcome:
    """Search for a better configuration of a family on the run's snapshot, from what served last.

    A winner that is shown better than what served last is what trainings use from now on. So is what served last, where
    trainings used another configuration that did not reach as much. Otherwise nothing changes.

    Args:
        run: the tenant and its snapshot.
        family: a family with a search space.
        minutes: of the search.
        earlier: the record of the family's earlier searches.
        stop: ends the search. What it has found counts; it stays due.
        tags: of the search's run in MLflow.
    """
    began = time.perf_counter()
    _, split = run.data()
    chosen = chosen_configuration(run, family)
    base, source = _served_last(run, family, chosen)
    before = newest_search(run.tracking, run.tenant, family)
    all_tags = {
        **{"tenant": run.tenant, "family": family, "snapshot_id": run.manifest.snapshot_id, "seed": str(SEED)},
        **{"split_hash": split.hash, "protocol": split.protocol, "began_with": source},
        **tags,
    }
    name = f"{family}, {datetime.now(UTC):%Y-%m-%d %H:%M}"
    searched = list(load_space(family).root)
    trials: list[TrialResult] = []
    result, problem = None, ""
    with study_run(run.tracking, tuning_experiment(run.tenant), name, all_tags, searched) as study:

        def on_trial(trial: TrialResult) -> None:
            trials.append(trial)
            study.log_trial(trial)

        try:
            with threadpool_limits(run.options.threads):
                result = search_family(
                    family,
                    split,
                    base,
                    options=replace(run.options, seed=SEED, group=None),  # a trial may be ended between two epochs
                    minutes=minutes,
                    base_models={other: chosen_configuration(run, other).config for other in base_models_of(family)},
                    earlier=[chosen.config, *(() if before is None else before.promising)],
                    on_trial=on_trial,
                    stop=stop,
                    tasks=search_tasks(run, family),
                )
        except SearchStoppedError as error:
            problem = str(error)
        except ValueError as error:  # too few data for the family: no search can end otherwise, until there are more
            problem = f"nothing could be searched: {' '.join(str(error).split())}"
        outcome = _outcome(family, chosen, base, source, trials, result, problem, earlier, stop, study)
        outcome = replace(outcome, minutes=(time.perf_counter() - began) / 60)
        _store(study, split, family, outcome, base)
    return outcome


def search_tasks(run: TrainingRun, family: str) -> SearchTasks | None:
    """Where the trials of a search run: in this process one after the other, or as tasks of a cluster."""
    installation = run.installation
    if installation.engine.engine == "local":
        return None
    recipe = SplitRecipe(
        run.snapshot, installation.history.max_events, run.exclude_seen, installation.pipeline.evaluated_users, SEED
    )
    return SearchTasks(installation.compute(), recipe, family, run.options, installation.engine.search_batch)


def _served_last(run: TrainingRun, family: str, chosen: ChosenConfiguration) -> tuple[ModelConfig, str]:
    """The champion's configuration, or what a training would use where no champion's can be read; with its source."""
    champion = run.tracking.champion(run.tenant, family)
    if champion is None:
        return chosen.config, chosen.source
    try:
        config = run.tracking.report(champion).config
    except UnreadableReportError as error:
        return chosen.config, f"{chosen.source}; of the champion, version {champion.version}: {error}"
    if config is None or isinstance(config, UnreadableConfig):
        reason = "its report holds no configuration" if config is None else config.reason
        return chosen.config, f"{chosen.source}; of the champion, version {champion.version}: {reason}"
    return config, f"the champion, version {champion.version}"


def _outcome(
    family: str,
    chosen: ChosenConfiguration,
    base: ModelConfig,
    source: str,
    trials: list[TrialResult],
    result: StudyResult | None,
    problem: str,
    earlier: SearchRecord | None,
    stop: StopOnce,
    study: StudyRun,
) -> SearchOutcome:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    stopped = bool(stop.reason)
    adopted = False
    if result is not None:
        back_to_served = not stopped and result.best == result.base and chosen.config != base
        adopted = result.shown_better or back_to_served
        problem = result.summary()
        if back_to_served:
            problem = f"what served last is better than what trainings used: {problem}"
    if stopped:
        problem = f"stopped, since {stop.reason}: {problem}"
    complete = now if not stopped else None if earlier is None else earlier.completed_at
    profile = chosen.profile_values() if not stopped else {} if earlier is None else earlier.profile
    in_use = study.run_id if adopted else None if earlier is None else earlier.in_use
    record = SearchRecord(now, complete, profile, study.run_id, adopted, in_use)
    summary = f"{problem}; trainings use {'it' if adopted else 'what they used before'}"
    return SearchOutcome(record, summary, source, tuple(trials), result, 0.0)


def _store(study: StudyRun, split: Split, family: str, outcome: SearchOutcome, base: ModelConfig) -> None:
    result = outcome.result
    found = StudyResult(0, base, 0.0, outcome.trials) if result is None else result
    if result is not None:
        study.log_result(result, as_yaml(family, split, result, SEED))
    facts: dict[str, Any] = {
        "family": family,
        "config": result.config.model_dump(mode="json") if result is not None and outcome.record.adopted else None,
        "base": base.model_dump(mode="json"),
        "promising": [config.model_dump(mode="json") for config in found.promising(PROMISING)],
        "ended_at": outcome.record.attempted_at,
        "summary": outcome.summary,
        "profile": outcome.record.profile,
        "improvement": None if result is None or result.improvement is None else result.improvement.model_dump(),
        "minutes": outcome.minutes,
    }
    store_search(study.tracking, study.run_id, facts, outcome.record.adopted)
    study.tracking.client.set_tag(study.run_id, "summary", outcome.summary)
