"""One run of the training loop: its arguments, and both them and its result as files.

Processes that are started for a run, on this machine or on others, read the arguments from a folder that all of them
reach. The files are JSON, `.npy`, `.npz` and safetensors, which run no code when they are read.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from configs.files import atomic_file
from feature_store.online import Histories
from training.data.splits import Holdout
from training.models.contract import FloatMatrix, RuntimeOptions
from training.models.deep_learning.config import DeepLearningConfig
from training.models.deep_learning.network import Network
from training.models.deep_learning.shared_data import FitData, SharedData, written_data

_ARGUMENTS, _NETWORK, _HOLDOUT, _RESULT = "fit.json", "network.safetensors", "holdout.npz", "result.safetensors"
_PREFIX = "network."
_RANDOM_STATE, _IDS, _PROGRESS = "random_state", "ids", "progress"
_HISTORY_COLUMNS = ("items", "types", "weights", "timestamps", "offsets")
_MATRICES = ("targets", "masked")


@dataclass(frozen=True)
class NetworkFit:
    """The arguments of one run of the training loop; `Trainer` explains each."""

    network: Network
    data: FitData | SharedData
    config: DeepLearningConfig
    options: RuntimeOptions
    stage: str
    epochs: int
    learning_rate: float
    seconds: float
    holdout: Holdout | None = None


@dataclass(frozen=True)
class FitResult:
    """What a run of the training loop leaves."""

    network: dict[str, Tensor]  # its state
    ids: FloatMatrix  # float32 [n_items, d]
    progress: dict[str, Any]  # the fields of `loop.Progress`
    random_state: Tensor  # of torch, after the run


def write_fit(run: NetworkFit, folder: Path) -> None:
    """Write the arguments of a run, and torch's random state as it is now, into this folder.

    Checkpoints of the run will be in the folder too. Its progress callback is not written.
    """
    data = written_data(run.data.open(), folder)
    state = {_PREFIX + name: value.contiguous() for name, value in run.network.state_dict().items()}
    save_file({**state, _RANDOM_STATE: torch.get_rng_state()}, folder / _NETWORK)
    if run.holdout is not None:
        _write_holdout(run.holdout, folder / _HOLDOUT)
    arguments = {
        "config": run.config.model_dump(mode="json"),
        "content_width": run.network.items.content.in_features,
        "sizes": [data.n_users, data.n_items],
        "has_ids": data.has_ids,
        "seed": run.options.seed,
        "loop": [run.stage, run.epochs, run.learning_rate, run.seconds],
    }
    (folder / _ARGUMENTS).write_text(json.dumps(arguments))


def read_fit(folder: Path) -> tuple[NetworkFit, Tensor]:
    """The run that `write_fit` wrote, with one thread for each process, and the random state to begin with."""
    arguments = json.loads((folder / _ARGUMENTS).read_text())
    n_users, n_items = arguments["sizes"]
    config = DeepLearningConfig.model_validate(arguments["config"])
    network = Network(arguments["content_width"], config)
    state = load_file(folder / _NETWORK)
    random_state = state.pop(_RANDOM_STATE)
    network.load_state_dict({name.removeprefix(_PREFIX): value for name, value in state.items()})
    network.types.requires_grad_(False)  # the table of types learns in its place
    run = NetworkFit(
        network,
        SharedData(folder, n_users, n_items, arguments["has_ids"]),
        config,
        RuntimeOptions(seed=arguments["seed"], threads=1, workdir=folder),
        *arguments["loop"],
    )
    holdout = folder / _HOLDOUT
    return (replace(run, holdout=_read_holdout(holdout)) if holdout.exists() else run), random_state


def write_result(result: FitResult, folder: Path) -> None:
    """Write the result of a run into the folder of its arguments."""
    tensors = {_PREFIX + name: value.contiguous() for name, value in result.network.items()}
    tensors |= {_IDS: torch.from_numpy(result.ids), _RANDOM_STATE: result.random_state}
    with atomic_file(folder / _RESULT) as file:
        save_file(tensors, file, metadata={_PROGRESS: json.dumps(result.progress)})


def read_result(folder: Path) -> FitResult:
    """The result that `write_result` wrote."""
    with safe_open(folder / _RESULT, framework="pt") as file:
        progress = json.loads(file.metadata()[_PROGRESS])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    ids, random_state = tensors.pop(_IDS).numpy(), tensors.pop(_RANDOM_STATE)
    state = {name.removeprefix(_PREFIX): value for name, value in tensors.items()}
    return FitResult(state, ids, progress, random_state)


def _write_holdout(holdout: Holdout, path: Path) -> None:
    columns = {name: getattr(holdout.histories, name) for name in _HISTORY_COLUMNS}
    for name in _MATRICES:
        matrix = getattr(holdout, name)
        columns |= {f"{name}.{part}": getattr(matrix, part) for part in ("data", "indices", "indptr", "shape")}
    np.savez(path, users=holdout.users, **columns)


def _read_holdout(path: Path) -> Holdout:
    with np.load(path) as found:
        histories = Histories(*(found[name] for name in _HISTORY_COLUMNS))
        targets, masked = (
            sp.csr_array(
                tuple(found[f"{name}.{part}"] for part in ("data", "indices", "indptr")),
                shape=tuple(found[f"{name}.shape"].tolist()),
            )
            for name in _MATRICES
        )
        return Holdout(found["users"], histories, targets, masked)
