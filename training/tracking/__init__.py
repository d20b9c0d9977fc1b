"""Trainings in MLflow. No other package imports mlflow.

`experiments` writes runs, `mlflow_store` logs trainings, `versions` and `promotions` keep the registry, and `aliases`
says what serves. `study_run` logs searches for hyper-parameters, `flavor` lays out a logged model, `payload` turns a
training into flat metrics and parameters, `documentation` writes what a reader sees (`model_card`, `plots`), and
`stored_names` reads names that earlier versions wrote. `server` runs MLflow's server behind the guard of the consoles.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.tracking.flavor import HistoryScorer


def _load_pyfunc(path: str) -> "HistoryScorer":
    """The model of a logged model. `mlflow.pyfunc.load_model` calls this with the model folder.

    Every logged model names this module as its loader, those of earlier versions too. The import is inside,
    because importing a light module of this package must not import MLflow.
    """
    from training.tracking.mlflow_store import load_logged_model

    return load_logged_model(path)
