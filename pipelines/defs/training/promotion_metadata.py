"""What the asset `champions` shows in Dagster of its decisions."""

from collections.abc import Mapping
from typing import Any

from pipelines.presentation import SUMMARY, image, table
from training.evaluation.promotion import PromotionVerdict
from training.evaluation.promotion_report import PromotionReport


def promotion_metadata(reports: Mapping[str, PromotionReport], champions: Mapping[str, str | None]) -> dict[str, Any]:
    """Summary, tables and a plot of the paired differences of each family that was compared.

    Args:
        reports: by family.
        champions: the versions that serve from now on, by family.
    """
    promoted = [name for name, report in reports.items() if report.promoted]
    of_verdict = {
        verdict: [name for name, report in reports.items() if report.verdict is verdict] for verdict in PromotionVerdict
    }
    blocked, holds = of_verdict[PromotionVerdict.BLOCKED], of_verdict[PromotionVerdict.HELD]
    summary = f"{len(promoted)} of {len(reports)} new versions promoted: {', '.join(promoted) or 'none'}"
    summary += f"; blocked until a person decides: {', '.join(blocked)}" if blocked else ""
    summary += f"; held until a person lifts it: {', '.join(holds)}" if holds else ""
    plots = {
        f"differences_{name.replace('-', '_')}": image(plot)
        for name, report in reports.items()
        if not report.same_configuration and (plot := report.plot()) is not None
    }
    return {
        SUMMARY: summary,
        "blocked": ", ".join(blocked) or "none",
        "held": ", ".join(holds) or "none",
        "decisions": table(
            [
                {
                    "family": name,
                    "new_version": report.version,
                    "verdict": report.verdict.value,
                    "promoted": report.promoted,
                    "blocked": report.verdict is PromotionVerdict.BLOCKED,
                    "champion": champions[name] or "",
                    "reason": report.reason,
                }
                for name, report in reports.items()
            ]
        ),
        "differences": table([{"family": name, **row} for name, report in reports.items() for row in report.rows()]),
        "rails": table(
            [
                {"family": name, "rail": rail.name, "passed": rail.passed, "what": rail.words}
                for name, report in reports.items()
                for rail in report.rails
            ]
        ),
        **plots,
    }
