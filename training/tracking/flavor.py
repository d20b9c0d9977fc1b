"""Writes a model folder as a logged model of MLflow, which `mlflow.pyfunc.load_model` can load."""

import shutil
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import Array

from feature_store.interaction_types import TYPE_CODES
from feature_store.online import Histories
from training.models.contract import Recommender

FLAVOR = "recommendai"
MODEL_FOLDER = "model"
"""Name of the model folder inside a logged model."""
LOADER = "training.tracking"
"""The module whose `_load_pyfunc` MLflow calls. The name is stored with every model, so it must not change."""

SIGNATURE = ModelSignature(
    inputs=Schema(
        [
            ColSpec(Array(DataType.long), "items"),
            ColSpec(Array(DataType.string), "types"),
            ColSpec(Array(DataType.double), "weights"),
            ColSpec(Array(DataType.long), "timestamps"),
        ]
    ),
    outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, -1))]),
)
"""Inputs: one row per history, oldest event first, items by position. Outputs: raw scores of all items."""


def write_logged_model(path: str, mlflow_model: Model, folder: Path) -> None:
    """Write a logged model to `path`. MLflow calls this as a flavor's `save_model`.

    folder: the model folder, which is copied.
    """
    shutil.copytree(folder, Path(path) / MODEL_FOLDER)
    mlflow_model.signature = SIGNATURE
    mlflow_model.add_flavor(FLAVOR, data=MODEL_FOLDER)
    mlflow.pyfunc.add_to_model(mlflow_model, loader_module=LOADER, data=MODEL_FOLDER)
    mlflow_model.save(str(Path(path) / "MLmodel"))


class HistoryScorer:
    """A model behind MLflow's interface: histories as rows of a frame in, raw scores out."""

    def __init__(self, model: Recommender) -> None:
        self.model = model

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> npt.NDArray[np.float32]:
        """Raw scores, float32 [n_rows, n_items]. model_input: the columns of SIGNATURE, one history a row."""
        lengths = model_input["items"].map(len).to_numpy()
        types = [TYPE_CODES[name] for row in model_input["types"] for name in row]
        histories = Histories(
            items=_flatten(model_input["items"], np.int32),
            types=np.array(types, dtype=np.int8),
            weights=_flatten(model_input["weights"], np.float32),
            timestamps=_flatten(model_input["timestamps"], np.int64),
            offsets=np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
        )
        return self.model.score(histories)


def _flatten(column: "pd.Series[Any]", dtype: type[np.generic]) -> npt.NDArray[Any]:
    """The lists of all rows, one after the other."""
    return np.array([value for row in column for value in row], dtype=dtype)
