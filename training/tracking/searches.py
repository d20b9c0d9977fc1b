"""The searches of the pipeline in MLflow, and the configurations that they found better, as trainings read them.

A tenant has one experiment for them, `<tenant>.tuning`. A search is one run there, with a nested run for each trial.
Its artefact `search.json` holds what later searches and trainings read. MLflow is in every backup.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow.entities import LifecycleStage, Run
from mlflow.exceptions import MlflowException

from training.evaluation.stored_config import UnreadableConfig, read_config
from training.models.contract import ModelConfig
from training.tracking.experiments import Experiments

SEARCH_FILE = "search.json"
ADOPTED = "adopted"
"""Tag of a search's run: `true` where trainings use what it found."""


@dataclass(frozen=True)
class StoredSearch:
    """What the newest search of a family left, as far as today's code can read it."""

    run_id: str
    ended_at: str  # RFC 3339, UTC
    config: ModelConfig | UnreadableConfig | None  # what was shown better; None: nothing was
    promising: tuple[ModelConfig, ...]  # the best trials' configurations, best first


def tuning_experiment(tenant_id: str) -> str:
    """The experiment of a tenant's searches. A tenant's id holds no dot, so that it is no tenant's own experiment."""
    return f"{tenant_id}.tuning"


def store_search(tracking: Experiments, run_id: str, facts: Mapping[str, Any], adopted: bool) -> None:
    """Write what a search found. facts: `family`, `config`, `promising`, `ended_at`, and what else is worth keeping."""
    tracking.client.log_text(run_id, json.dumps(facts, indent=2), SEARCH_FILE)
    tracking.client.set_tag(run_id, ADOPTED, str(adopted).lower())


def newest_search(tracking: Experiments, tenant_id: str, family: str) -> StoredSearch | None:
    """The newest search of a tenant's family; None where there was none."""
    run = _newest(tracking, tenant_id, f"tags.family = '{family}'")
    return None if run is None else _read(tracking, run, family)


def adopted_search(tracking: Experiments, tenant_id: str, family: str) -> StoredSearch | None:
    """The newest search whose configuration the family's trainings use; None where there is none.

    Its configuration is an `UnreadableConfig` where the artefact is damaged, or today's code cannot build it.
    """
    run = _newest(tracking, tenant_id, f"tags.family = '{family}' AND tags.{ADOPTED} = 'true'")
    return None if run is None else _read(tracking, run, family)


def _newest(tracking: Experiments, tenant_id: str, condition: str) -> Run | None:
    experiment = tracking.client.get_experiment_by_name(tuning_experiment(tenant_id))
    if experiment is None or experiment.lifecycle_stage != LifecycleStage.ACTIVE:
        return None
    found = tracking.client.search_runs(
        [experiment.experiment_id], condition, max_results=1, order_by=["attributes.start_time DESC"]
    )
    return found[0] if found else None


def _read(tracking: Experiments, run: Run, family: str) -> StoredSearch:
    run_id = str(run.info.run_id)
    try:
        with TemporaryDirectory() as folder:
            facts = json.loads(Path(tracking.client.download_artifacts(run_id, SEARCH_FILE, folder)).read_text())
        values, listed, ended_at = facts["config"], facts["promising"], str(facts["ended_at"])
    except (MlflowException, OSError, ValueError, KeyError, TypeError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        unreadable = UnreadableConfig(values={}, reason=f"{SEARCH_FILE} cannot be read: {first}")
        return StoredSearch(run_id, "", unreadable, ())
    configs = (read_config(family, each) for each in listed)
    promising = tuple(each for each in configs if not isinstance(each, UnreadableConfig))
    return StoredSearch(run_id, ended_at, None if values is None else read_config(family, values), promising)
