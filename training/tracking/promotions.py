"""Decisions about versions: the reports of the promotion rule, and what persons choose."""

from dataclasses import dataclass

import pandas as pd

from training.evaluation.promotion import PromotionVerdict
from training.evaluation.promotion_report import PromotionReport
from training.tracking import stored_names
from training.tracking.versions import ModelRef, Versions, registered_name

PROMOTION_FOLDER = "promotion"
"""Folder of a run's artefacts with the report on the promotion: `promotion.json`, `promotion.md`, `differences.png`."""
_PROMOTED_BY_HAND, _ROLLED_BACK = "promoted by hand", "rolled back to"
"""Verdicts of persons, beside those of the rule."""


class NoPreviousVersionError(LookupError):
    """A family has no version that it could go back to."""


@dataclass(frozen=True)
class ManualChoice:
    """A person made a version the champion."""

    by: str
    reason: str
    rolled_back: bool


class Promotions(Versions):
    """Moves aliases by decisions, which it records, on one MLflow server or store."""

    def record_promotion(self, ref: ModelRef, report: PromotionReport) -> None:
        """Log the report with the version's run, tag both with the verdict, and move the aliases accordingly."""
        for name, text in (("promotion.json", report.model_dump_json(indent=2)), ("promotion.md", report.as_text())):
            self.client.log_text(ref.run_id, text, f"{PROMOTION_FOLDER}/{name}")
        if (plot := report.plot()) is not None:
            self.client.log_figure(ref.run_id, plot, f"{PROMOTION_FOLDER}/differences.png")
        self._tag_version_and_run(
            ref,
            {
                stored_names.PROMOTION_REASON: report.reason,
                stored_names.PROMOTION_VERDICT: report.verdict.value,
                stored_names.PROMOTION_BLOCKED: str(report.verdict is PromotionVerdict.BLOCKED).lower(),
                stored_names.PROMOTED: str(report.promoted).lower(),
            },
        )
        if report.promoted:
            self.make_champion(ref.name, ref.version)
        else:
            self.make_challenger(ref.name, ref.version)

    def promotion_report(self, ref: ModelRef) -> PromotionReport:
        """The report that was logged with a version. Raises UnreadableReportError where it cannot be read."""
        return PromotionReport.model_validate(self._logged_json(ref, f"{PROMOTION_FOLDER}/promotion.json"))

    def promote_by_hand(self, tenant_id: str, family: str, version: str, *, by: str, reason: str) -> ModelRef:
        """Move the alias to a version that a person chose, past the promotion rule; who and why are kept as tags.

        Raises UnknownVersionError where the version does not exist.
        """
        ref = self.version(tenant_id, family, version)
        self._tag_version_and_run(
            ref,
            {
                stored_names.PROMOTION_REASON: f"promoted by {by}: {reason}",
                stored_names.PROMOTION_VERDICT: _PROMOTED_BY_HAND,
                stored_names.PROMOTED: "true",
                stored_names.OVERRIDDEN_BY: by,
                stored_names.OVERRIDE_REASON: reason,
                stored_names.OVERRIDDEN_AT: pd.Timestamp.now("UTC").isoformat(timespec="seconds"),
            },
        )
        self.make_champion(ref.name, ref.version, by_hand=True)
        return ref

    def roll_back(self, tenant_id: str, family: str, *, by: str, reason: str) -> ModelRef:
        """Make the previous version the champion, and hold it until a person lifts that. Who and why are kept as tags.

        Raises NoPreviousVersionError where there is no previous version.
        """
        name = registered_name(tenant_id, family)
        version = None if self.model_aliases(name) is None else self.go_back(name)
        if version is None:
            raise NoPreviousVersionError(f"{name} has no version with the alias `previous` to go back to")
        hold = self.hold(name, by, reason)
        ref = self.version(tenant_id, family, version)
        self._tag_version_and_run(
            ref,
            {
                stored_names.PROMOTION_REASON: f"rolled back by {by}: {reason}",
                stored_names.PROMOTION_VERDICT: _ROLLED_BACK,
                stored_names.PROMOTED: "true",
                stored_names.OVERRIDDEN_BY: by,
                stored_names.OVERRIDE_REASON: reason,
                stored_names.OVERRIDDEN_AT: hold.since,
            },
        )
        return ref

    def choice_of(self, ref: ModelRef) -> ManualChoice | None:
        """Who chose the champion by hand, and why; None where the rule promoted it."""
        tags = self.client.get_model_version(ref.name, ref.version).tags
        verdict = tags.get(stored_names.PROMOTION_VERDICT)
        if verdict in (_PROMOTED_BY_HAND, _ROLLED_BACK):
            by, reason = tags[stored_names.OVERRIDDEN_BY], tags[stored_names.OVERRIDE_REASON]
            return ManualChoice(by, reason, rolled_back=verdict == _ROLLED_BACK)
        found = self.model_aliases(ref.name)
        if found is not None and found.hold is not None and found.champion == ref.version:
            return ManualChoice(found.hold.by, found.hold.reason, rolled_back=False)
        return None
