"""Drift: whether a tenant's newest day differs from the days before it by more than those differ from each other."""

import warnings
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from configs.escaping import markdown_code
from pipelines.alerts import send_alert
from pipelines.defs.features.assets import feature_snapshot
from pipelines.defs.ingestion.assets import lake_interactions, lake_items
from pipelines.defs.monitoring.flag import DRIFT, DriftState, read_drift, write_drift
from pipelines.jobs import MEASURE_DRIFT, TRAINING, tags_of_work
from pipelines.partitions import runs_of_tenants, tenants
from pipelines.presentation import SUMMARY, limit_plot, table
from pipelines.resources import Installation
from pipelines.tenant_settings import tenant_settings

if TYPE_CHECKING:
    from pipelines.defs.monitoring.steps import Judgement, MeasuredDrift
    from training.evaluation.drift import DailyMeasure

CHECKS = {
    "volume": "The day has as many events as the same weekday of the weeks before lets expect.",
    "popularity": "Events are spread over popular and unpopular items as usual.",
    "activity": "Users have as many events in the day as usual.",
    "types": "The types of interaction have their usual shares.",
    "categories": "The labels of the items that users choose have their usual shares.",
    "norms": "The lengths of the vectors of the items that users choose have their usual shares.",
    "followed": "Users follow as large a share of the models' answers as usual.",
    "accuracy": "The newest release ranks what users choose about as well as at its training.",
    "parity": "Requests see the same histories of users as training does.",
    "unknown_items": "The share of events with items that the catalogue does not have is as usual.",
}
"""The checks of the asset with their descriptions, one per measure."""
SHOWN_DAYS = 90
"""Days in a plot, up to the newest one."""


def _specs() -> list[dg.AssetCheckSpec]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # checks with partitions, as those of the lake
        return [
            dg.AssetCheckSpec(name, asset=dg.AssetKey(DRIFT), description=text, partitions_def=tenants)
            for name, text in CHECKS.items()
        ]


@dg.asset(
    name=DRIFT,
    group_name="monitoring",
    partitions_def=tenants,
    kinds={"duckdb"},
    deps=[lake_interactions, lake_items, feature_snapshot],
    check_specs=_specs(),
    op_tags={"dagster/priority": "1"},  # of the steps that can run, the first: `release` reads what it finds
)
def drift(context: dg.AssetExecutionContext, installation: dg.ResourceParam[Installation]) -> dg.MaterializeResult:  # type: ignore[type-arg]  # with its type Dagster takes the checks for further outputs
    """How the tenant's newest complete day differs from its own past, measure by measure, with the days before it."""
    from pipelines.defs.monitoring.steps import measure_drift  # loads the models' libraries
    from training.evaluation.drift_samples import DriftThresholds

    tenant = context.partition_key
    settings = tenant_settings(installation, tenant).drift
    if not settings.enabled:
        write_drift(installation, tenant, DriftState())
        return _not_measured("not measured: the tenant's settings switch it off")
    thresholds = DriftThresholds(settings.psi, settings.volume_drop, settings.unknown_items)
    found = measure_drift(installation, tenant, thresholds, datetime.now(UTC), settings.parity)
    if found is None:
        write_drift(installation, tenant, DriftState())
        return _not_measured("not measured: the lake has no complete day with an event")
    before = read_drift(installation, tenant)
    state = before.after(found.until, found.days[-1], found.drifted, settings.action)
    if new := before.newly(found.drifted):
        _alert(installation, tenant, found, new, settings.action)
    write_drift(installation, tenant, state)
    return dg.MaterializeResult(
        metadata={SUMMARY: _summary(found, state), **_metadata(found, state)},
        check_results=[_check(name, [each for each in found.judgements if each.measure == name]) for name in CHECKS],
    )


def _alert(installation: Installation, tenant: str, found: "MeasuredDrift", new: list[str], action: str) -> None:
    """Tell the tenant of the measures that have drifted and had not on the day before."""
    day = found.days[-1].isoformat()
    measures = {
        f"{each.measure} of {each.field}" if each.field else each.measure: each.text
        for each in found.judgements
        if each.measure in new and each.drifted
    }
    facts = {"day": day, "measures": measures, "action": action}
    send_alert(installation, tenant, "drift", f"Drift of {', '.join(new)} on {day}", facts)


def _not_measured(reason: str) -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(
        metadata={SUMMARY: reason},
        check_results=[_result(name, True, reason) for name in CHECKS],
    )


def _check(name: str, judgements: "list[Judgement]") -> dg.AssetCheckResult:
    if not judgements:
        return _result(name, True, "no verdict: there is nothing to measure it on")
    # Dagster reads the description of a check as Markdown, and a field is a name of the tenant's metadata.
    named = [f"{markdown_code(each.field)}: {each.text}" if each.field else each.text for each in judgements]
    return _result(name, not any(each.drifted for each in judgements), "; ".join(named))


def _result(name: str, passed: bool, description: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=name, passed=passed, severity=dg.AssetCheckSeverity.WARN, description=description
    )


def _summary(found: "MeasuredDrift", state: DriftState) -> str:
    verdicts = sum(each.limit is not None for each in found.judgements)
    if not found.drifted:
        undecided = (
            f", {len(found.judgements) - verdicts} without a verdict" if verdicts < len(found.judgements) else ""
        )
        return f"{state.day}: no drift in {verdicts} measures{undecided}"
    stopped = "; publishing stops" if state.stops_publishing else ""
    return f"{state.day}: drift of {', '.join(found.drifted)}{stopped}"


def _metadata(found: "MeasuredDrift", state: DriftState) -> dict[str, Any]:
    """Figures that Dagster plots over time, a table of all measures, and a plot of each over the last days."""
    plots = {
        f"{name.replace('_', ' ')} by day": _plot(name, found) for name in CHECKS if _strongest(name, found) is not None
    }
    return {
        "day": state.day,
        "drifted": ", ".join(found.drifted) or "none",
        "events": int(found.counts.events[-1]),
        "publishing": "stopped by drift" if state.stops_publishing else "allowed",
        **({"lifted": f"by {state.lifted_by}: {state.lifted_because}"} if state.lifted_by else {}),
        # Of several fields the one that has moved most.
        **{
            each.measure: each.value
            for each in sorted(found.judgements, key=lambda each: each.value or 0.0)
            if each.value is not None
        },
        "measures": table(
            [
                {
                    "measure": each.measure.replace("_", " "),
                    "field": each.field,
                    "day": None if each.day is None else each.day.isoformat(),
                    "value": None if each.value is None else round(each.value, 4),
                    "limit": None if each.limit is None else round(each.limit, 4),
                    "verdict": "drift" if each.drifted else "no verdict" if each.limit is None else "as usual",
                    "in words": each.text,
                }
                for each in found.judgements
            ]
        ),
        **plots,
    }


def _strongest(name: str, found: "MeasuredDrift") -> "DailyMeasure | None":
    """Of the fields that a measure is of, the one that is closest to its limit, or beyond it, on the newest day."""
    named = [
        (measure, each)
        for measure, each in zip(found.measures, found.judgements, strict=False)
        if measure.name == name and each.value is not None
    ]
    return max(named, key=lambda pair: (pair[1].value or 0.0) / (pair[1].limit or 1.0), default=(None,))[0]


def _plot(name: str, found: "MeasuredDrift") -> dg.MetadataValue:
    measure = _strongest(name, found)
    if measure is None:
        raise LookupError(f"{name} has no value on the newest day")
    labels = {"volume": "share of expected events", "unknown_items": "share of events", "followed": "share of answers"}
    return limit_plot(
        found.days[-SHOWN_DAYS:],
        measure.values[-SHOWN_DAYS:],
        measure.limits[-SHOWN_DAYS:],
        measure.drifted[-SHOWN_DAYS:],
        xlabel="day (UTC)",
        ylabel=labels.get(name, "stability index (PSI)"),
    )


drift_job = dg.define_asset_job(
    MEASURE_DRIFT,
    selection=dg.AssetSelection.assets(lake_interactions, lake_items, drift),
    executor_def=dg.in_process_executor,
    config=runs_of_tenants(),
    tags=tags_of_work(TRAINING),
    description="Exports new data, checks it, and measures whether the newest day differs from those before.",
)
