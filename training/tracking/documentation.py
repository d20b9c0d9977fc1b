"""What a run and a version show to a reader beside figures: a card, the data, the code, plots.

`Tracking.log` calls `document` while the run is open, so that a version without its card is one of a failed run.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric
from mlflow.types import ColSpec, DataType, Schema
from mlflow.utils.git_utils import get_git_commit
from mlflow.utils.mlflow_tags import (
    MLFLOW_DATASET_CONTEXT,
    MLFLOW_GIT_COMMIT,
    MLFLOW_RUN_NOTE,
    MLFLOW_SOURCE_NAME,
    MLFLOW_SOURCE_TYPE,
)

from feature_store import columns as c
from training.evaluation.code_version import code_version
from training.models.registry import family_module
from training.tracking import payload, plots
from training.tracking.experiments import Experiments, now_ms
from training.tracking.model_card import family_card, version_card
from training.train import TrainedModel

if TYPE_CHECKING:
    from training.tracking.versions import ModelRef

CODE_TAG = "code_version"
_SOURCE = "training/train.py"
"""What MLflow names as a run's source: a path in the repository, and none of this machine."""
_SCHEMA = Schema(
    [
        ColSpec(DataType.integer, c.USER),
        ColSpec(DataType.integer, c.ITEM),
        ColSpec(DataType.integer, c.TYPE),
        ColSpec(DataType.float, c.WEIGHT),
        ColSpec(DataType.long, c.TIMESTAMP),
    ]
)
"""The columns of a snapshot's interactions. Users and items are positions."""


def source_tags(family: str) -> dict[str, str]:
    """Which code trains a family: a hash of all sources that it imports and, in a checkout, the commit."""
    found = {MLFLOW_SOURCE_NAME: _SOURCE, MLFLOW_SOURCE_TYPE: "LOCAL", CODE_TAG: family_code_version(family)}
    if (commit := _commit()) is not None:
        found[MLFLOW_GIT_COMMIT] = commit
    return found


@cache  # the code of a process does not change
def family_code_version(family: str) -> str:
    """A hash of the sources that a training of the family runs."""
    return code_version("training.train", family_module(family))


def document(
    tracking: Experiments, ref: "ModelRef", model_id: str, trained: TrainedModel, base_models: Mapping[str, str]
) -> None:
    """Describe a version and its run.

    Args:
        ref: the registered version.
        model_id: of the logged model behind it, whose page shows the main metrics too.
        trained: what was logged.
        base_models: registered versions of an ensemble's base models, by family.
    """
    client = tracking.client
    data = data_inputs(trained, ref.tenant_id)
    client.log_inputs(ref.run_id, datasets=data)
    dataset, now = data[-1].dataset, now_ms()
    client.log_batch(
        ref.run_id,
        metrics=[
            Metric(name, value, now, 0, model_id, dataset.name, dataset.digest, ref.run_id)
            for name, value in payload.headline(trained.report).items()
        ],
    )
    for name, figure in plots.training_plots(trained).items():
        client.log_figure(ref.run_id, figure, f"{plots.FOLDER}/{name}.png")
    card = version_card(trained, ref.tenant_id, ref.version, base_models, family_code_version(ref.family))
    client.set_tag(ref.run_id, MLFLOW_RUN_NOTE, card)
    client.update_model_version(ref.name, ref.version, description=card)
    client.update_registered_model(ref.name, description=family_card(ref.tenant_id, ref.family))


def data_inputs(trained: TrainedModel, tenant_id: str) -> list[DatasetInput]:
    """The snapshot as training data, and its test window as evaluation data. They hold counts, no row and no id."""
    report = trained.report
    name = f"{tenant_id} snapshot"
    source = json.dumps({"tenant": tenant_id, "snapshot": report.snapshot_id})
    schema = json.dumps({"mlflow_colspec": _SCHEMA.to_dict()})
    train, test = {}, {}
    if trained.diagnostics is not None:
        data = trained.diagnostics.data
        train = {"num_rows": data.events, "users": data.users, "items": data.items}
        test = {"num_rows": data.evaluated_users}
    # MLflow takes digests of up to 36 characters; data sets from files have no id.
    digest = (report.snapshot_id or report.split_hash)[:36]
    return [
        DatasetInput(
            Dataset(title, key, "recommendai", source, schema, json.dumps(profile)),
            [InputTag(MLFLOW_DATASET_CONTEXT, context)],
        )
        for title, key, profile, context in (
            (name, digest, train, "training"),
            (f"{name}, test window", report.split_hash[:36], test, "evaluation"),
        )
    ]


@cache
def _commit() -> str | None:
    """The commit of this checkout; None where the package was installed without one."""
    return get_git_commit(str(Path(str(files("training"))).resolve()))
