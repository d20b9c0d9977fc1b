"""Keeps lists and segments up to date between the nightly runs."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from feature_store import sources
from feature_store.lake import TenantLake
from feature_store.list_sources import ListState, list_states
from pipelines.jobs import LAKE, LISTS, RETRAIN
from pipelines.partitions import TENANT_TAG, TENANTS
from pipelines.resources import Installation
from pipelines.runs import active_runs

MAX_AGE = timedelta(hours=1)
"""Lists that are older are made anew, where the tenant has new interactions or erasures."""
MAX_REQUESTS = 200
"""Runs that a tick asks for; the next tick asks for the others. Dagster takes 10 ms for each, and ends a tick after
60 s."""


def outdated_lists(status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """The sensor of the job `lists`. status: whether it starts switched on."""

    @dg.sensor(name="outdated_lists", job_name=LISTS, minimum_interval_seconds=60, default_status=status)
    def sensor(context: dg.SensorEvaluationContext, installation: dg.ResourceParam[Installation]) -> dg.SensorResult:
        """Runs the job for tenants with a segment that nobody has measured, and for those whose lists are outdated."""
        present = set(context.instance.get_dynamic_partitions(TENANTS))
        now = datetime.now(UTC)
        requests: list[dg.RunRequest] = []
        waiting: list[str] = []
        active = {
            run.tags[TENANT_TAG]: run for job in (LISTS, RETRAIN, LAKE) for run in active_runs(context.instance, job)
        }
        for state in _rotated(outdated(installation, now), context.cursor):
            tenant = state.tenant_id
            if tenant not in present:
                continue
            if len(requests) == MAX_REQUESTS:
                break
            if run := active.get(tenant):
                waiting.append(f"{tenant}: run {run.run_id} is {run.status.value.lower()}")
            else:
                # Where a run fails, the next one is an hour later, unless a segment changes.
                key = f"{tenant}:{state.made_at}:{state.waiting_since}:{now:%Y-%m-%dT%H}"
                requests.append(dg.RunRequest(run_key=key, partition_key=tenant, tags={"trigger": "lists"}))
        reason = None if requests else "; ".join(waiting) or "all lists are up to date"
        last = requests[-1].partition_key if len(requests) == MAX_REQUESTS else None
        return dg.SensorResult(run_requests=requests, skip_reason=reason, cursor=last or "")

    return sensor


def _rotated(states: list[ListState], last: str | None) -> list[ListState]:
    """The states by tenant, beginning after `last`, the tenant that the previous tick ended with."""
    return sorted(states, key=lambda state: (state.tenant_id <= (last or ""), state.tenant_id))


def outdated(installation: Installation, now: datetime) -> list[ListState]:
    """The tenants whose lists should be made anew, by id. Two queries answer for all tenants."""
    url = installation.database_url()
    states = list_states(url)
    cursors = {state.tenant_id: TenantLake(installation.paths.lake, state.tenant_id).cursor() for state in states}
    places = {tenant: (cursor.next_xid, cursor.cluster) for tenant, cursor in cursors.items()}
    unseen = {each.tenant_id: each.interactions + each.erasures > 0 for each in sources.unexported(url, places, 1)}
    return [
        state
        for state in states
        if _is_outdated(state, now, unseen[state.tenant_id], cursors[state.tenant_id].exported_at)
    ]


def _is_outdated(state: ListState, now: datetime, has_unexported: bool, exported_at: str | None) -> bool:
    if state.waiting_since is not None:
        return True
    if state.made_at is None:
        return has_unexported or exported_at is not None
    has_new = has_unexported or (exported_at is not None and datetime.fromisoformat(exported_at) > state.made_at)
    return has_new and now - state.made_at >= MAX_AGE
