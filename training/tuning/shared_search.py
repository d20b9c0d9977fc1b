"""Searches of several families, one after the other, within one budget of minutes: `evaluate --search MINUTES`."""

import json
import time
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from configs.files import write_text
from training.data.splits import Split
from training.evaluation.code_version import code_version
from training.evaluation.intervals import Estimate
from training.evaluation.stored_config import UnreadableConfig, read_config
from training.models.contract import ModelConfig, RuntimeOptions
from training.models.registry import family_class
from training.tuning.family_search import search_family
from training.tuning.search_space import is_searchable


class FamilySearch(BaseModel):
    """What a search found for one family before its evaluation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    summary: str
    adopted: bool  # whether the evaluated model has the configuration that was found; else the one in use
    config: dict[str, Any]  # of the evaluated model
    base_value: float | None = None  # NDCG@10 of the configuration in use on the validation window
    value: float | None = None  # of the best one
    improvement: Estimate | None = None
    trials: int = 0
    minutes: float = 0.0


class SharedSearch:
    """The budget of several searches. A family gets an equal share of what the families before it have left."""

    def __init__(self, split: Split, options: RuntimeOptions, minutes: float, keep: Path | None = None) -> None:
        """A budget of which nothing is used.

        Args:
            split: its validation window decides.
            options: `max_seconds` bounds the fits of an evaluation.
            minutes: of all searches together.
            keep: folder of results, which are read again where split, seed, minutes, code and base are the same.
        """
        self._split, self._options, self._keep = split, options, keep
        self._minutes = self._left = minutes
        self.results: list[FamilySearch] = []

    def configuration(
        self, family: str, base: ModelConfig, base_models: Mapping[str, ModelConfig], families_left: int
    ) -> ModelConfig:
        """What the family is evaluated with: the winner of its search where that is shown better than `base`.

        Args:
            family: it keeps `base` where it has no search space, or the data are not enough for a search.
            base: the configuration in use.
            base_models: configurations of an ensemble's base models.
            families_left: families that share what is left of the budget, this one included.
        """
        path = None if self._keep is None else self._path(self._keep, family, base, base_models)
        if path is not None and path.exists():
            found = FamilySearch.model_validate_json(path.read_text())
        else:
            found = self._search(family, base, base_models, self._left / families_left)
            if path is not None:
                write_text(path, found.model_dump_json(indent=2))
        self._left = max(0.0, self._left - found.minutes)
        self.results.append(found)
        config = read_config(family, found.config)
        return base if isinstance(config, UnreadableConfig) else config

    def _search(
        self, family: str, base: ModelConfig, base_models: Mapping[str, ModelConfig], minutes: float
    ) -> FamilySearch:
        began = time.perf_counter()
        unchanged = base.model_dump(mode="json")
        if not is_searchable(family):
            return FamilySearch(model=family, summary="has no search space", adopted=False, config=unchanged)
        try:
            result = search_family(
                family, self._split, base, options=self._options, minutes=minutes, base_models=base_models
            )
        except ValueError as error:
            reason = f"nothing could be searched: {' '.join(str(error).split())}"
            return FamilySearch(model=family, summary=reason, adopted=False, config=unchanged)
        adopted = result.shown_better
        return FamilySearch(
            model=family,
            summary=result.summary(),
            adopted=adopted,
            config=result.config.model_dump(mode="json") if adopted else unchanged,
            base_value=result.baseline,
            value=result.value,
            improvement=result.improvement,
            trials=len(result.trials),
            minutes=(time.perf_counter() - began) / 60,
        )

    def _path(self, keep: Path, family: str, base: ModelConfig, base_models: Mapping[str, ModelConfig]) -> Path:
        key = {
            "family": family,
            "code": code_version(search_family.__module__, family_class(family).__module__),
            "split_hash": self._split.hash,
            "seed": self._options.seed,
            "max_seconds": self._options.max_seconds,
            "minutes": self._minutes,
            "base": base.model_dump(mode="json"),
            "base_models": {name: config.model_dump(mode="json") for name, config in sorted(base_models.items())},
        }
        digest = blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=6).hexdigest()
        return keep / f"search-{family}-{digest}.json"
