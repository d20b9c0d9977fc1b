"""Configurations and models that earlier versions wrote are read under their present names."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import load_file, save_file

from tests.training.catalogue import build_dataset, histories, items_of
from training.data.dataset import Dataset
from training.models.cold_start.boost import ColdItemBoost, ColdStartModel
from training.models.contract import RuntimeOptions
from training.models.registry import family_class, load_model, save_model

OPTIONS = RuntimeOptions(threads=1, seed=1, max_seconds=600)
QUERIES = histories([0, 5, 9], [], [7])


@pytest.mark.parametrize(
    ("family", "stored", "present"),
    [
        ("collaborative", {"memories": [3.0], "memory_items": 7}, {"decay_half_lives": [3.0], "transition_items": 7}),
        ("collaborative", {"memory_regularisation": 9.0}, {"transition_regularisation": 9.0}),
        ("collaborative", {"repetition": 2.0}, {"repeat_weight": 2.0}),
        ("content-based", {"likeness": 0.7}, {"similarity_weight": 0.7}),
        ("content-based", {"mixture": {"newcomers": 0.3}}, {"mixture": {"cold_item_share": 0.3}}),
        ("deep-learning", {"trend_half_lives": [], "asked": 0.5}, {"popularity_half_lives": [], "target_share": 0.5}),
        ("deep-learning", {"mask_past": True, "averaging": 0.5}, {"mask_history": True, "weight_averaging": 0.5}),
        ("hybrid", {"questions_per_user": 2, "max_questions": 9}, {"queries_per_user": 2, "max_queries": 9}),
        ("hybrid", {"newcomers": 0.2, "newcomer_cost": 0.3}, {"cold_item_share": 0.2, "cold_item_cost": 0.3}),
        ("hybrid", {"ranker": {"breadth_powers": [0.0]}}, {"ranker": {"diversity_powers": [0.0]}}),
    ],
)
def test_configuration_keys_are_read_in_both_spellings_and_written_in_the_new(
    family: str, stored: dict[str, Any], present: dict[str, Any]
) -> None:
    config_class = family_class(family).Config
    assert config_class.model_validate(stored) == config_class.model_validate(present)
    written = config_class.model_validate(stored).model_dump()
    assert set(present) <= set(written) and not (set(stored) - set(present)) & set(written)
    with pytest.raises(ValidationError):
        config_class.model_validate({**stored, "unheard_of": 1})


def rename(path: Path, names: dict[str, str]) -> None:
    """Give keys, arrays or tensors of a stored file the names that commit 965fd7a wrote."""
    if path.suffix == ".json":
        text = path.read_text()
        for present, earlier in names.items():
            assert f'"{present}":' in text
            text = text.replace(f'"{present}":', f'"{earlier}":')
        path.write_text(text)
    elif path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            np.savez(path, **{names.get(name, name): array for name, array in dict(arrays).items()})
    else:
        earlier = {name: value for name, value in load_file(path).items()}
        for old, new in names.items():
            earlier = {name.replace(old, new): value for name, value in earlier.items()}
        save_file(earlier, path)


def with_cold_items() -> Dataset:
    dataset = build_dataset()
    return dataset.where(~np.isin(dataset.interactions.items, items_of(0)[::3]))


@pytest.mark.fit
def test_a_label_mixture_of_an_earlier_version_scores_the_same(tmp_path: Path) -> None:
    found = family_class("content-based")
    model = found(found.Config.model_validate({"mixture": {}})).fit(with_cold_items(), OPTIONS)
    save_model(model, tmp_path)
    (tmp_path / "label_mixture.json").rename(tmp_path / "labelled.json")
    (tmp_path / "label_mixture.npz").rename(tmp_path / "rates.npz")
    rate = {"cold_start_rate": "arrivals", "cold_item_boost": "lift", "reference_day": "moment", "date_fields": "dated"}
    rename(tmp_path / "labelled.json", rate)
    rename(tmp_path / "rates.npz", {"label_weights": "says", "cold_items": "newcomers"})
    loaded = load_model(tmp_path)
    for one, other in ((loaded, model), (loaded.as_base_model(), model.as_base_model())):
        np.testing.assert_array_equal(one.score(QUERIES), other.score(QUERIES))


@pytest.mark.fit
def test_a_transformer_of_an_earlier_version_scores_the_same(tmp_path: Path) -> None:
    found = family_class("deep-learning")
    config = {"dimensions": 16, "blocks": 1, "epochs": 1, "refit_epochs": 0, "max_length": 20}
    model = found(found.Config.model_validate(config)).fit(build_dataset(), OPTIONS)
    save_model(model, tmp_path)
    tensors = {"users.popularity_weights.": "users.trend.", "network.repeat_consumption.": "network.again."}
    rename(tmp_path / "weights.safetensors", tensors)
    np.testing.assert_array_equal(load_model(tmp_path).score(QUERIES), model.score(QUERIES))


@pytest.mark.fit
def test_a_hybrid_of_an_earlier_version_scores_the_same(tmp_path: Path) -> None:
    dataset = with_cold_items()
    content, collaborative, hybrid = (family_class(each) for each in ("content-based", "collaborative", "hybrid"))
    past = dataset.where(dataset.interactions.timestamps < np.quantile(dataset.interactions.timestamps, 0.8))
    known_until = int(past.interactions.timestamps.max()) + 1
    base_models = {"collaborative": collaborative().fit(past, OPTIONS), "content-based": content().fit(past, OPTIONS)}
    model: Any = hybrid(None, base_models, known_until).fit(dataset, OPTIONS)  # type: ignore[call-arg]
    model.cold_item_boost = ColdItemBoost(value=0.5, share=0.1, ndcg=1.0)
    model.cold_start_model = ColdStartModel(family="content-based", weight=0.1)
    save_model(model, tmp_path)
    learned = {
        "kept_base_model": "kept_component",
        "base_model_ndcg": "component_ndcg",
        "n_queries": "n_questions",
        "aggregate_diversity": "breadth",
        "base_model_diversity": "component_breadth",
    }
    rename(tmp_path / "hybrid.json", {"cold_item_boost": "lift", "cold_start_model": "guide", **learned})
    rename(tmp_path / "hybrid.npz", {"cold_items": "newcomers"})
    assert "guide" in json.loads((tmp_path / "hybrid.json").read_text())
    loaded: Any = load_model(tmp_path, base_models)
    np.testing.assert_array_equal(loaded.score(QUERIES), model.score(QUERIES))
    assert loaded.cold_start_model == model.cold_start_model and loaded.learned == model.learned
