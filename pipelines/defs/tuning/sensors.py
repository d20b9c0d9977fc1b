"""Starts searches for better hyper-parameters: one family of one tenant after the other, within the day's budget."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from configs.storage import open_storage
from feature_store.lake import tenant_folder
from pipelines.defs.training.families import configuration_key, searchable_families
from pipelines.defs.tuning.assets import MINUTES_TAG
from pipelines.defs.tuning.records import search_record, snapshot_value, trained_value
from pipelines.defs.tuning.turns import SearchCandidate, changed_in_kind, next_turns
from pipelines.jobs import SEARCH
from pipelines.partitions import TENANT_TAG, TENANTS
from pipelines.resources import Installation
from pipelines.runs import active_runs, waiting_work
from pipelines.tenant_settings import all_tenant_settings

DAY = timedelta(days=1)
FAMILY_TAG = "recommendai/family"


def searches(status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """The sensor of the job `search`. status: whether it starts switched on."""

    @dg.sensor(name="searches", job_name=SEARCH, minimum_interval_seconds=60, default_status=status)
    def sensor(
        context: dg.SensorEvaluationContext, installation: dg.ResourceParam[Installation]
    ) -> dg.SensorResult | dg.SkipReason:
        """Starts the searches whose turn it is, while no training waits or runs and the day's budget is not used up."""
        if busy := waiting_work(context.instance):
            return dg.SkipReason(f"searches wait: {busy}")
        now, settings = datetime.now(UTC), installation.pipeline
        active = list(active_runs(context.instance, SEARCH))
        slots = settings.search_runs - len(active)
        if slots <= 0:
            return dg.SkipReason(f"the search {active[0].run_id} goes on")
        recent = _runs_of_the_last_day(context.instance, now)
        budget = settings.search_minutes_per_day
        left = budget - sum(_minutes(run, now) for run in recent)
        searched = {run.tags.get(TENANT_TAG) for run in active}
        tenants = [each for each in context.instance.get_dynamic_partitions(TENANTS) if each not in searched]
        candidates = list(search_candidates(installation, tenants, _attempts(recent), now))
        turns = next_turns(candidates, now, left, budget, slots)
        if not turns:
            due = sum(1 for each in candidates if each.due(now))
            return dg.SkipReason(f"{due} searches are due; {max(0.0, left):.0f} of {budget:.0f} minutes a day are left")
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(
                    partition_key=turn.candidate.tenant,
                    asset_selection=[configuration_key(turn.candidate.family)],
                    tags={
                        "trigger": turn.reason,
                        FAMILY_TAG: turn.candidate.family,
                        MINUTES_TAG: f"{turn.minutes:g}",
                    },
                )
                for turn in turns
            ]
        )

    return sensor


def search_candidates(
    installation: Installation,
    tenants: Sequence[str],
    attempts: Mapping[tuple[str | None, str | None], datetime],
    now: datetime,
) -> Iterator[SearchCandidate]:
    """Every family that was trained on a snapshot that is still there, of the tenants that want searches.

    attempts: when runs of the last day began, by tenant and family; those that failed left no other trace.
    """
    paths, settings = installation.paths, all_tenant_settings(installation)
    families = searchable_families()
    for tenant in tenants:
        wanted, snapshot = settings[tenant].search, snapshot_value(paths, tenant)
        if not wanted.enabled or snapshot is None:
            continue
        if not open_storage(tenant_folder(paths.features, tenant)).exists(snapshot["snapshot_id"]):
            continue  # a restore leaves snapshots out, and the next training makes one
        for order, family in enumerate(families):
            trained = trained_value(paths, tenant, family)
            if trained is None:
                continue
            profile = trained.get("profile", {})  # an earlier version kept none
            record = search_record(paths, tenant, family)
            attempted, completed = (None, None) if record is None else record.times
            earlier = {} if record is None else record.profile
            tried = [each for each in (attempted, attempts.get((tenant, family))) if each is not None]
            yield SearchCandidate(
                tenant,
                family,
                every=timedelta(days=wanted.every_days),
                minutes=wanted.minutes,
                events_per_day=_events_per_day(profile, earlier, completed, now),
                attempted_at=max(tried, default=None),
                completed_at=completed,
                changed="" if completed is None else changed_in_kind(earlier, profile),
                order=order,
            )


def _events_per_day(
    profile: Mapping[str, Any], earlier: Mapping[str, Any], completed: datetime | None, now: datetime
) -> float:
    """New interactions a day since the last search, or over the whole span of the data before the first."""
    if completed is None:
        return float(profile.get("n_events", 0) / max(1.0, profile.get("span_days", 1.0)))
    new = profile.get("n_events", 0) - earlier.get("n_events", 0)
    return float(max(0, new) / max(1.0, (now - completed) / DAY))


def _runs_of_the_last_day(instance: dg.DagsterInstance, now: datetime) -> Sequence[dg.RunRecord]:
    """Runs of searches that began within the last day, or go on. One that began before has ended by now, or nearly."""
    return instance.get_run_records(dg.RunsFilter(job_name=SEARCH, created_after=now - DAY))


def _minutes(record: dg.RunRecord, now: datetime) -> float:
    """What a run takes of the budget: its minutes, and what it was given where it has not ended."""
    if record.dagster_run.is_finished:
        began = record.start_time or record.end_time or 0.0
        return max(0.0, (record.end_time or began) - began) / 60
    began = record.start_time or now.timestamp()
    return max((now.timestamp() - began) / 60, float(record.dagster_run.tags.get(MINUTES_TAG, 0.0)))


def _attempts(records: Sequence[dg.RunRecord]) -> dict[tuple[str | None, str | None], datetime]:
    """When the newest of the runs of each tenant and family was made."""
    found: dict[tuple[str | None, str | None], datetime] = {}
    for record in records:
        tags = record.dagster_run.tags
        key = tags.get(TENANT_TAG), tags.get(FAMILY_TAG)
        found[key] = max(record.create_timestamp, found.get(key, record.create_timestamp))
    return found
