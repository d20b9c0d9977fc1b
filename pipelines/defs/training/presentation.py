"""Training results as metadata that people read in Dagster's UI."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np

from pipelines.presentation import Cell, line_plot
from training.evaluation.report import EvaluationReport

if TYPE_CHECKING:
    from training.tracking.mlflow_store import Tracking
    from training.tracking.versions import ModelRef
    from training.train import TrainedModel

COMPARED_METRICS = ("ndcg@10", "recall@10", "hit_rate@10", "mrr", "auc", "coverage@10")


def comparison(reports: Iterable[EvaluationReport]) -> list[dict[str, Cell]]:
    """One row per model and user segment. A random order has one row per segment, with its expected metrics."""
    rows: dict[tuple[str, str], dict[str, Cell]] = {}
    for report in reports:
        for result in report.results:
            row: dict[str, Cell] = {"model": result.model, "segment": result.segment, "users": result.n_users}
            for name in COMPARED_METRICS:
                row[name] = round(result.metrics[name].mean, 4) if name in result.metrics else None
            row["fit_seconds"] = None if result.fit_seconds is None else round(result.fit_seconds, 1)
            rows.setdefault((result.segment, result.model), row)
    return [rows[key] for key in sorted(rows)]


def curves(trained: "TrainedModel") -> dict[str, dg.MetadataValue]:
    """A plot of every series of numbers that a fit recorded, such as the loss of each epoch."""
    found = {}
    for name, values in trained.report.notes.items():
        if isinstance(values, list) and len(values) > 1 and all(isinstance(value, int | float) for value in values):
            epochs = range(1, len(values) + 1)
            found[f"curve_{name}"] = line_plot(epochs, np.array(values), xlabel="epoch", ylabel=name)
    return found


def model_links(tracking: "Tracking", ref: "ModelRef") -> dict[str, Any]:
    """Links to the run and the registered version in MLflow's UI; their names where no MLflow server is configured."""
    if not tracking.uri.startswith("http"):
        return {"mlflow_run": ref.run_id, "registered_model": f"{ref.name} version {ref.version}"}
    base = tracking.uri.rstrip("/")
    return {
        "mlflow_run": run_link(tracking, ref.run_id),
        "registered_model": dg.MetadataValue.url(f"{base}/#/models/{ref.name}/versions/{ref.version}"),
    }


def run_link(tracking: "Tracking", run_id: str) -> str | dg.MetadataValue:
    """A link to a run in MLflow's UI; its id where no MLflow server is configured."""
    if not tracking.uri.startswith("http"):
        return run_id
    experiment = tracking.client.get_run(run_id).info.experiment_id
    return dg.MetadataValue.url(f"{tracking.uri.rstrip('/')}/#/experiments/{experiment}/runs/{run_id}")
