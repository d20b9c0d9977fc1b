"""Checkpoints of a long fit: one safetensors file, whose header carries everything that is no tensor as JSON."""

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
    """The file of one stage of one fit. `key` identifies the fit; a file with another key is ignored.

    Of several processes that train together, one may be killed before it has written what another one has. So each
    keeps the checkpoint before the last one too, and all of them go on from a step that each has.
    """

    path: Path
    key: str
    keeps_two: bool = False

    def write(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Replace the file atomically, so that an interrupted write leaves the previous checkpoint.

        facts: plain values, among them `step`, the number of steps so far.
        """
        remove_unfinished_copies(self.path)
        values = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        with atomic_file(self.path) as file:
            save_file(values, file, metadata={_STATE: json.dumps({"key": self.key, **facts})})
            if self.keeps_two and 0 < self._step_of(self.path) < facts["step"]:
                self.path.replace(self._earlier)

    def newest_step(self) -> int:
        """The step of the last checkpoint; 0 where this fit has written none."""
        return max(self._step_of(self.path), self._step_of(self._earlier))

    def read(self, step: int | None = None) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and facts of the checkpoint of this step, by default the last one; None where there is none."""
        wanted = self.newest_step() if step is None else step
        path = next((each for each in (self.path, self._earlier) if wanted and self._step_of(each) == wanted), None)
        if path is None:
            return None
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()[_STATE])
            del facts["key"]
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118

    @property
    def _earlier(self) -> Path:
        return self.path.with_name(f"{self.path.name}.earlier")

    def _step_of(self, path: Path) -> int:
        """The step of a file of this fit; 0 where it is none."""
        if not path.is_file():
            return 0
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()[_STATE])
        return int(facts["step"]) if facts["key"] == self.key else 0


def key_of(events: Interactions, config: ModelConfig, options: RuntimeOptions, *more: object) -> str:
    """A hash of everything that determines the course of a fit: data, configuration, seed and `more`."""
    digest = blake2b(config.model_dump_json().encode(), digest_size=8)
    digest.update(repr((options.seed, *more)).encode())
    for column in events.columns:
        digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()


def optimiser_tensors(optimiser: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> dict[str, Tensor]:
    """The optimiser's state of every parameter (Adam's moments, steps), named by the parameter's index."""
    return {
        f"optimiser.{i}.{name}": value
        for i, parameter in enumerate(parameters)
        for name, value in optimiser.state[parameter].items()
    }


def restore_optimiser(
    optimiser: torch.optim.Optimizer, parameters: Sequence[Tensor], tensors: dict[str, Tensor]
) -> None:
    """Set the optimiser's state to what `optimiser_tensors` returned; other tensors are ignored."""
    for name, value in tensors.items():
        if name.startswith("optimiser."):
            _, place, moment = name.split(".")
            parameter = parameters[int(place)]
            optimiser.state[parameter][moment] = value.to(parameter.device)
