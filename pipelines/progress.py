"""Shows a run on the terminal: the current step, the result of each step, and why one failed."""

import time
from types import TracebackType
from typing import Self

import dagster as dg
from rich.console import Console
from rich.markup import escape
from rich.status import Status

from pipelines.presentation import SUMMARY


class RunProgress:
    """Prints a line per step as Dagster's events arrive, and keeps the error messages of failed steps."""

    def __init__(self, console: Console) -> None:
        self.failures: dict[str, str] = {}  # step -> message
        self._console = console
        self._status = Status("starting", console=console)
        self._started: dict[str, float] = {}
        self._summaries: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._status.stop()

    def __call__(self, entry: dg.EventLogEntry) -> None:
        """Show one entry of the run's event log."""
        event = entry.dagster_event
        if event is None or event.step_key is None:
            return
        step = event.step_key
        if event.event_type == dg.DagsterEventType.STEP_START:
            self._started[step] = time.monotonic()
            self._status.update(f"{step} ...")
        elif event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION:
            metadata = event.step_materialization_data.materialization.metadata
            if SUMMARY in metadata:
                self._summaries[step] = str(metadata[SUMMARY].value)
        elif event.event_type == dg.DagsterEventType.ASSET_OBSERVATION:
            metadata = event.asset_observation_data.asset_observation.metadata
            if SUMMARY in metadata:
                self._summaries[step] = str(metadata[SUMMARY].value)
        elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            evaluation = event.asset_check_evaluation_data
            if not evaluation.passed:
                found = f"{evaluation.asset_key.to_user_string()}: {evaluation.check_name}: {evaluation.description}"
                self.failures[step] = "\n".join(filter(None, [self.failures.get(step), found]))
        elif event.event_type == dg.DagsterEventType.STEP_SUCCESS:
            self._line("[green]done[/]  ", step, self._summaries.get(step, ""))
        elif event.event_type == dg.DagsterEventType.STEP_FAILURE:
            error = event.step_failure_data.error
            if error is not None:
                self.failures.setdefault(step, (error.cause or error).message.strip())
            self._line("[red]failed[/]", step, "")
        elif event.event_type == dg.DagsterEventType.STEP_SKIPPED:
            self._line("[yellow]not run[/]", step, "")

    def _line(self, outcome: str, step: str, summary: str) -> None:
        seconds = time.monotonic() - self._started.get(step, time.monotonic())
        self._console.print(
            f"{outcome} {step:<20} [dim]{seconds:6.1f} s[/]  {escape(summary)}", highlight=False, soft_wrap=True
        )
