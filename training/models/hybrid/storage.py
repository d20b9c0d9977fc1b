"""The files of a saved hybrid, which refers to its base models by family; earlier versions used other names."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from training.models.cold_start.boost import ColdItemBoost, ColdStartModel
from training.models.contract import Mask
from training.models.hybrid.config import HybridConfig
from training.models.hybrid.learning import LearnedRanker
from training.models.hybrid.scales import Scale
from training.models.stored_names import present_names

DESCRIPTION_FILE = "hybrid.json"
ARRAYS_FILE = "hybrid.npz"
_EARLIER_NAMES = {"lift": "cold_item_boost", "guide": "cold_start_model", "newcomers": "cold_items"}


@dataclass
class HybridState:
    """What a fit learned, apart from the base models; `Hybrid` explains each."""

    learned: LearnedRanker
    growth: float
    scales: dict[str, Scale]
    explained_by: list[str]
    evidence_agreement: float | None
    popularity: npt.NDArray[np.float32]
    cold_items: Mask
    cold_item_boost: ColdItemBoost
    cold_start_model: ColdStartModel | None


def write_state(state: HybridState, config: HybridConfig, path: Path) -> None:
    """Write configuration and state into the folder `path` as JSON and .npz."""
    path.mkdir(parents=True, exist_ok=True)
    description = {
        "config": config.model_dump(mode="json"),
        "learned": state.learned.model_dump(mode="json"),
        "growth": state.growth,
        "explained_by": state.explained_by,
        "evidence_agreement": state.evidence_agreement,
        "scales": {family: asdict(scale) for family, scale in state.scales.items()},
        "cold_item_boost": state.cold_item_boost.model_dump(mode="json"),
        "cold_start_model": state.cold_start_model and state.cold_start_model.model_dump(mode="json"),
    }
    (path / DESCRIPTION_FILE).write_text(json.dumps(description, indent=2))
    np.savez(path / ARRAYS_FILE, popularity=state.popularity, cold_items=state.cold_items)


def read_state(path: Path) -> tuple[HybridConfig, HybridState]:
    """What `write_state` of this or an earlier version wrote."""
    stored: dict[str, Any] = present_names(json.loads((path / DESCRIPTION_FILE).read_text()), _EARLIER_NAMES)
    with np.load(path / ARRAYS_FILE, allow_pickle=False) as found:
        arrays = present_names(found, _EARLIER_NAMES)
    cold_start_model = stored["cold_start_model"]
    state = HybridState(
        learned=LearnedRanker.model_validate(stored["learned"]),
        growth=stored["growth"],
        scales={family: Scale(**scale) for family, scale in stored["scales"].items()},
        explained_by=stored["explained_by"],
        evidence_agreement=stored["evidence_agreement"],
        popularity=arrays["popularity"],
        cold_items=arrays["cold_items"],
        cold_item_boost=ColdItemBoost.model_validate(stored["cold_item_boost"]),
        cold_start_model=cold_start_model and ColdStartModel.model_validate(cold_start_model),
    )
    return HybridConfig.model_validate(stored["config"]), state
