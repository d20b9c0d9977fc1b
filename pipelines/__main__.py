"""`python -m pipelines`: run the pipeline, backfill days, add tenants, promote or roll back models, or serve the UI."""

import getpass
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn
from uuid import uuid4

import typer
from rich.console import Console

from configs.addresses import PortSettings
from configs.console_guard import ConsoleSettings
from configs.files import keep_state_private
from configs.logging import configure
from configs.priority import run_in_background
from configs.settings import PathSettings
from pipelines import services
from pipelines.services import refuse_open_console, refuse_unusable_state

if TYPE_CHECKING:
    import dagster as dg  # takes two seconds, which `--help` need not spend

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(services.app)
console = Console(file=sys.stderr)  # bound now, because a run redirects sys.stderr later

TenantOption = Annotated[str, typer.Option("--tenant", help="Id of a tenant in the database.")]


@app.command("run")
def run_pipeline(
    tenant: TenantOption,
    force: Annotated[bool, typer.Option(help="Train although nothing is new since the last training.")] = False,
    resume: Annotated[bool, typer.Option(help="Go on with the newest run, which failed, at the failed step.")] = False,
    verbose: Annotated[bool, typer.Option(help="Show what Dagster and the libraries log.")] = False,
) -> None:
    """Run the whole pipeline of one tenant in this process; the run shows in Dagster's UI.

    Where no interaction, item or setting is new since the last training, nothing is trained.
    """
    from pipelines.defs.training.training_inputs import FORCE_TAG
    from pipelines.jobs import RETRAIN

    if force and resume:
        _fail("--force starts a new run and --resume goes on with one: give one of them")
    _run_job(tenant, RETRAIN, {FORCE_TAG: "true"} if force else {}, resume=resume, verbose=verbose)


@app.command()
def backfill(
    tenant: TenantOption,
    since: Annotated[str, typer.Option("--from", help="First day, YYYY-MM-DD in UTC, by the arrival of interactions.")],
    verbose: Annotated[bool, typer.Option(help="Show what Dagster and the libraries log.")] = False,
) -> None:
    """Make a tenant's lake whole from a day on, and the features, lists and daily figures of it anew.

    Use it where files of the lake are gone or cannot be read. Rows that the lake lacks come from the database; where
    none is missing, nothing changes. Nothing is trained: the next training uses the new features.
    """
    from pipelines.backfill_day import BACKFILL_TAG, BackfillDayError, parse_backfill_day
    from pipelines.jobs import BACKFILL

    try:
        day = parse_backfill_day(since)
    except BackfillDayError as error:
        _fail(f"--from: {error}")
    _run_job(tenant, BACKFILL, {BACKFILL_TAG: day.isoformat()}, verbose=verbose)


def _run_job(tenant: str, name: str, own_tags: Mapping[str, str], *, resume: bool = False, verbose: bool) -> None:
    """Run a job of a tenant in this process, show its steps, and exit with status 1 where one fails."""
    from pipelines import resume as resuming
    from pipelines.definitions import build_definitions
    from pipelines.instance import open_instance
    from pipelines.jobs import BACKFILL, LAKE, RETRAIN
    from pipelines.progress import RunProgress
    from pipelines.resources import Installation
    from pipelines.runs import PROCESS_TAG, active_run, claim_for_resuming, this_process

    refuse_unusable_state()
    installation = Installation()
    _refuse_unknown(installation.database_url(), tenant)
    log = installation.paths.logs / "pipelines.log"
    with open_instance(installation.paths) as instance, RunProgress(console) as progress, _libraries_to(log, verbose):
        configure("pipelines")
        _add_partition(instance, tenant)
        if busy := next(filter(None, (active_run(instance, tenant, job) for job in (RETRAIN, LAKE, BACKFILL))), None):
            _fail(f"another run works on tenant {tenant} already: run {busy.run_id} is {busy.status.value.lower()}")
        run_id = str(uuid4())
        instance.add_event_listener(run_id, progress)
        job = build_definitions(installation).resolve_job_def(name)
        tags = {PROCESS_TAG: this_process(), "trigger": "command line"}
        if resume:
            try:
                failed = resuming.failed_run(instance, tenant)
            except resuming.NothingToResumeError as error:
                _fail(f"there is nothing to resume: {error}")
            claim_for_resuming(instance, failed)
            success = resuming.resume(job, instance, failed, run_id, tags)
        else:
            success = job.execute_in_process(
                instance=instance,
                run_id=run_id,
                partition_key=tenant,
                raise_on_error=False,
                tags={**tags, **own_tags},
                run_config={"loggers": {"console": {"config": {"log_level": "INFO" if verbose else "ERROR"}}}},
            ).success
    if not success:
        for step, message in progress.failures.items():
            console.print(f"\n{step} failed:", style="bold red")
            console.print(message, markup=False, highlight=False, soft_wrap=True)
        _fail(
            f"run {run_id} of tenant {tenant} failed"
            + ("" if verbose else f"; the output of the libraries is in {log}")
        )


@app.command("add-tenant")
def add_tenant(tenant: Annotated[str, typer.Argument(help="Id of a tenant in the database.")]) -> None:
    """Give a tenant its partition, as the sensor `new_tenants` does."""
    from pipelines.instance import open_instance
    from pipelines.resources import Installation

    installation = Installation()
    _refuse_unknown(installation.database_url(), tenant)
    with open_instance(installation.paths) as instance:
        _add_partition(instance, tenant)


@app.command("follow-database")
def follow_restored_database() -> None:
    """Bring lake, rejected rows and releases in line with a restored database, for all tenants. A restore calls it."""
    from pipelines.defs.ingestion.tenant_deletion import follow_database
    from pipelines.resources import Installation

    print(follow_database(Installation()))


@app.command()
def promote(
    tenant: TenantOption,
    family: Annotated[str, typer.Option(help="Name of the model family.")],
    version: Annotated[str, typer.Option(help="Number of the registered version in MLflow.")],
    reason: Annotated[str, typer.Option(help="Why the promotion rule is overridden; kept as a tag in MLflow.")],
    by: Annotated[str, typer.Option(help="Who decides; default: the user of this system.")] = "",
) -> None:
    """Make a version the champion of its family, whatever the promotion rule says. It is published within a minute.

    Use it where a run reports that a promotion is blocked. Later versions are compared with it.
    """
    from pipelines.defs.training.steps import tracking_of
    from pipelines.resources import Installation
    from training.tracking.versions import UnknownVersionError

    installation = Installation()
    _refuse_unknown(installation.database_url(), tenant)
    if not reason.strip():
        _fail("--reason is empty: say why the version is promoted without a comparison")
    tracking = tracking_of(installation)
    before = tracking.champion(tenant, family)
    try:
        ref = tracking.promote_by_hand(tenant, family, version, by=by or getpass.getuser(), reason=reason.strip())
    except UnknownVersionError as error:
        _fail(str(error))
    earlier = "there was no champion" if before is None else f"version {before.version} was"
    console.print(f"version {ref.version} of {family} is the champion now; {earlier}", markup=False, soft_wrap=True)


@app.command("lift-drift")
def lift_drift(
    tenant: TenantOption,
    reason: Annotated[str, typer.Option(help="Why releases may be published in spite of the drift; kept and shown.")],
    by: Annotated[str, typer.Option(help="Who decides; default: the user of this system.")] = "",
) -> None:
    """Publish a tenant's releases again although drift stops it, until another day drifts. The next run publishes."""
    from pipelines.defs.monitoring.flag import lift_flag
    from pipelines.resources import Installation

    installation = Installation()
    _refuse_unknown(installation.database_url(), tenant)
    if not reason.strip():
        _fail("--reason is empty: say why releases may be published in spite of the drift")
    try:
        state = lift_flag(installation, tenant, by or getpass.getuser(), reason.strip())
    except LookupError as error:
        _fail(str(error))
    drifted = ", ".join(state.drifted)
    console.print(f"the drift of {drifted} on {state.day} stops nothing any more", markup=False, soft_wrap=True)


@app.command()
def rollback(
    tenant: TenantOption,
    family: Annotated[str, typer.Option(help="Name of the model family; default: every one that can go back.")] = "",
    reason: Annotated[str, typer.Option(help="Why; kept in MLflow and in the audit trail.")] = "rolled back",
    by: Annotated[str, typer.Option(help="Who decides; default: the user of this system.")] = "",
) -> None:
    """Serve the previous champions again, within a minute, and keep them until `lift`.

    Later trainings become challengers only. A version that was trained on other item positions cannot be served: the
    next training, which starts by itself, fits its configuration again and serves that.
    """
    from pipelines.defs.publishing.rollbacks import roll_back
    from pipelines.resources import Installation
    from training.tracking.promotions import NoPreviousVersionError

    installation = Installation()
    _refuse_unknown(installation.database_url(), tenant)
    try:
        gone_back = roll_back(installation, tenant, family or None, by or getpass.getuser(), reason.strip())
    except NoPreviousVersionError as error:
        _fail(str(error))
    for each in gone_back:
        console.print(each.words, markup=False, soft_wrap=True)


@app.command()
def lift(
    tenant: TenantOption,
    family: Annotated[str, typer.Option(help="Name of the model family; default: all that are held.")] = "",
) -> None:
    """End what a rollback or an alias moved in MLflow holds: later versions may become champions again."""
    from pipelines.defs.publishing.rollbacks import end_holds
    from pipelines.resources import Installation

    installation = Installation()
    _refuse_unknown(installation.database_url(), tenant)
    lifted = end_holds(installation, tenant, family or None)
    if not lifted:
        _fail(f"nothing is held of tenant {tenant}" + (f" in the family {family}" if family else ""))
    for name, hold in lifted.items():
        words = f"{name} was held by {hold.by} since {hold.since}; new versions may become champion again"
        console.print(words, markup=False, soft_wrap=True)


@app.command()
def ui() -> None:
    """Serve Dagster's UI, and the daemon that runs schedules and sensors, until a signal ends them."""
    from pipelines.console import ConsoleError, run_console
    from pipelines.instance import open_instance, prepare_home
    from pipelines.runs import abandoned_runs, fail_runs

    ports = PortSettings()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ports.dagster_host, ports.dagster))
        except OSError as error:
            _fail(f"port {ports.dagster} is not free ({error.strerror}): stop what uses it or set DAGSTER_PORT")
    refuse_open_console(ports, ConsoleSettings())

    def fail_abandoned() -> None:
        with open_instance(PathSettings()) as instance:
            for run_id in fail_runs(instance, abandoned_runs(instance)):
                console.print(f"run {run_id} was cut off earlier and is marked as failed; it is started again")

    prepare_home(PathSettings())
    try:
        run_console(ports.dagster_host, ports.dagster, before_daemon=fail_abandoned)
    except ConsoleError as error:
        _fail(str(error))


@contextmanager
def _libraries_to(log: Path, verbose: bool) -> Iterator[None]:
    """Send what libraries print to a file, since it would break the progress display. With `verbose`, do not."""
    if verbose:
        yield
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file, redirect_stdout(file), redirect_stderr(file):
        yield


def _refuse_unknown(database_url: str, tenant: str) -> None:
    from feature_store import sources

    if tenant not in sources.tenants(database_url):
        _fail(f"there is no tenant {tenant!r}: make one with `python -m api create-tenant --id {tenant}`")


def _add_partition(instance: "dg.DagsterInstance", tenant: str) -> None:
    from pipelines.partitions import TENANTS

    if not instance.has_dynamic_partition(TENANTS, tenant):
        instance.add_dynamic_partitions(TENANTS, [tenant])


def _fail(message: str) -> NoReturn:
    console.print(message, style="bold red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(1)


if __name__ == "__main__":
    keep_state_private()
    run_in_background()
    app()
