"""Experiments and runs, in MLflow."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Makes the user interface open an experiment on runs and charts, not on traces of language models."""
_BATCH = 900
"""Metrics per request; MLflow takes 1,000 values in one."""


class Experiments:
    """One MLflow server or store.

    Args:
        uri: `http://...` of a server, or `sqlite:///...` of a store.
        artifacts: where a store without a server keeps artefacts; a server decides that itself.
    """

    def __init__(self, uri: str, artifacts: Path | None = None) -> None:
        self.uri = uri
        self.artifacts = None if uri.startswith("http") else artifacts
        self.client = MlflowClient(tracking_uri=uri, registry_uri=uri)

    def experiment_id(self, name: str) -> str:
        """The experiment of this name, created where it does not exist."""
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        location = None
        if self.artifacts is not None:
            location = created_folder(self.artifacts / name).absolute().as_uri()
        try:
            return str(self.client.create_experiment(name, artifact_location=location, tags=_EXPERIMENT_TAGS))
        except MlflowException as error:
            found = self.client.get_experiment_by_name(name)  # a concurrent run of the tenant created it
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
                raise
            return str(found.experiment_id)

    def log_values(
        self,
        run_id: str,
        metrics: Sequence[tuple[str, float, int]],
        params: Mapping[str, Any],
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Add metrics (name, value and step), parameters and tags to a run."""
        now = now_ms()
        points = [Metric(name, value, now, step) for name, value, step in metrics]
        for start in range(0, len(points), _BATCH):
            self.client.log_batch(run_id, metrics=points[start : start + _BATCH])
        texts = [Param(name, str(value)[:500]) for name, value in params.items()]
        self.client.log_batch(run_id, params=texts, tags=[RunTag(name, text) for name, text in (tags or {}).items()])

    def use_in_process(self) -> None:
        """Make this the server of the whole process, from which MLflow's calls that log or download a model read it."""
        mlflow.set_tracking_uri(self.uri)
        mlflow.set_registry_uri(self.uri)


def now_ms() -> int:
    """Milliseconds since the epoch, the unit of MLflow's times."""
    return int(pd.Timestamp.now("UTC").timestamp() * 1000)


def created_folder(folder: Path) -> Path:
    """The folder, created where it does not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder
