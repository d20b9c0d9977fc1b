"""The versions of registered models, with what was logged of each."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException

from training.evaluation.report import EvaluationReport
from training.tracking import stored_names
from training.tracking.aliases import CHAMPION, MISSING, Aliases

REPORT_FILE = "evaluation.json"


class UnknownVersionError(LookupError):
    """The registry has no such version."""


class UnreadableReportError(Exception):
    """The evaluation report of a version is missing or damaged."""


@dataclass(frozen=True)
class ModelRef:
    """One version of a registered model."""

    tenant_id: str
    family: str
    version: str
    run_id: str

    @property
    def name(self) -> str:
        return registered_name(self.tenant_id, self.family)


def registered_name(tenant_id: str, family: str) -> str:
    """The name of a family's registered model."""
    return f"{tenant_id}.{family}"


class Versions(Aliases):
    """The versions of all registered models on one MLflow server or store."""

    def champion(self, tenant_id: str, family: str) -> ModelRef | None:
        """The version that the alias names, or None where there is no alias; see `last_promoted`."""
        try:
            version = self.client.get_model_version_by_alias(registered_name(tenant_id, family), CHAMPION)
        except MlflowException as error:
            if error.error_code in MISSING:
                return None
            raise
        return ModelRef(tenant_id, family, str(version.version), str(version.run_id))

    def last_promoted(self, tenant_id: str, family: str) -> str | None:
        """The version that was promoted last, as text, or None where none ever was.

        The tags of runs hold this even after the alias or the version was deleted. So a family that lost its champion
        is distinguished from one that never had any.
        """
        run_id = self.last_promoted_run(tenant_id, family)
        if run_id is None:
            return None
        versions = self.client.search_model_versions(f"run_id = '{run_id}'")
        return f"version {versions[0].version}" if versions else f"a deleted version of run {run_id}"

    def last_promoted_run(self, tenant_id: str, family: str) -> str | None:
        """The id of the newest run whose version was promoted; None where none ever was."""
        experiment = self.client.get_experiment_by_name(tenant_id)
        if experiment is None or experiment.lifecycle_stage != LifecycleStage.ACTIVE:
            return None
        found = self.client.search_runs(
            [experiment.experiment_id],
            f"tags.family = '{family}' AND tags.{stored_names.PROMOTED} = 'true'",
            order_by=["attributes.start_time DESC"],
            max_results=1,
        )
        return str(found[0].info.run_id) if found else None

    def version(self, tenant_id: str, family: str, version: str) -> ModelRef:
        """A version by its number. Raises UnknownVersionError where it does not exist."""
        name = registered_name(tenant_id, family)
        try:
            found = self.client.get_model_version(name, version)
        except MlflowException as error:
            if error.error_code in MISSING:
                raise UnknownVersionError(f"{name} has no version {version!r} in the registry") from error
            raise
        return ModelRef(tenant_id, family, str(found.version), str(found.run_id))

    def tags(self, ref: ModelRef) -> dict[str, str]:
        """The tags of the run that trained a version, under today's names."""
        return stored_names.current_names(self.client.get_run(ref.run_id).data.tags, stored_names.RENAMED_TAGS)

    def report(self, ref: ModelRef) -> EvaluationReport:
        """The evaluation that was logged with a version. Raises UnreadableReportError where it cannot be read."""
        try:
            return EvaluationReport.model_validate({"family": ref.family, **self._logged_json(ref, REPORT_FILE)})
        except (ValueError, TypeError) as error:
            raise _unreadable(REPORT_FILE, error) from error

    def _logged_json(self, ref: ModelRef, name: str) -> Any:
        """A JSON artefact of a version's run. Raises UnreadableReportError where it cannot be read."""
        try:
            with TemporaryDirectory() as folder:
                return json.loads(Path(self.client.download_artifacts(ref.run_id, name, folder)).read_text())
        except (MlflowException, OSError, ValueError) as error:
            raise _unreadable(name, error) from error

    def _tag_version_and_run(self, ref: ModelRef, tags: Mapping[str, str]) -> None:
        for name, value in tags.items():
            self.client.set_model_version_tag(ref.name, ref.version, name, value)
            self.client.set_tag(ref.run_id, name, value)


def _unreadable(name: str, error: Exception) -> UnreadableReportError:
    first = next(iter(str(error).splitlines()), type(error).__name__)
    return UnreadableReportError(f"its report {name} cannot be read: {first}")
