"""Where a long fit stands, in one safetensors file whose header carries the rest as JSON. Never pickle."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from configs.files import atomic_file, remove_unfinished_copies
from training.data.dataset import Interactions
from training.models.contract import ModelConfig, RuntimeOptions

_STATE = "state"


@dataclass(frozen=True)
class Checkpoint:
    """The file of one stage of one fit. `key` says of which; what another fit left is not read."""

    path: Path
    key: str

    def write(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Replace what was there at once: whoever is interrupted while writing still has the state before."""
        remove_unfinished_copies(self.path)
        values = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        with atomic_file(self.path) as file:
            save_file(values, file, metadata={_STATE: json.dumps({"key": self.key, **facts})})

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What was written, or None where this fit has written nothing."""
        if not self.path.is_file():
            return None
        with safe_open(self.path, framework="pt") as file:
            facts = json.loads(file.metadata()[_STATE])
            if facts.pop("key") != self.key:
                return None
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118


def key_of(events: Interactions, config: ModelConfig, options: RuntimeOptions, *more: object) -> str:
    """One word for everything that decides how a fit goes."""
    digest = blake2b(config.model_dump_json().encode(), digest_size=8)
    digest.update(repr((options.seed, *more)).encode())
    for column in (events.users, events.items, events.types, events.weights, events.timestamps):
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()


def optimiser_tensors(optimiser: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> dict[str, Tensor]:
    """The moments of every parameter by its place."""
    return {
        f"optimiser.{i}.{name}": value
        for i, parameter in enumerate(parameters)
        for name, value in optimiser.state[parameter].items()
    }


def restore_optimiser(
    optimiser: torch.optim.Optimizer, parameters: Sequence[Tensor], tensors: dict[str, Tensor]
) -> None:
    for name, value in tensors.items():
        if name.startswith("optimiser."):
            _, place, moment = name.split(".")
            parameter = parameters[int(place)]
            optimiser.state[parameter][moment] = value.to(parameter.device)
