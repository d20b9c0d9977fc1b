"""Reads a release folder: its manifest, item table, models and score maps."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq

from feature_store import columns as c
from serving.contracts.releases import ITEMS_FILE, MANIFEST_FILE, BrokenReleaseError, ReleaseManifest
from serving.overlay import Catalogue
from training.evaluation.calibration import ScoreMap
from training.models.contract import Mask, Recommender
from training.models.registry import load_model


@dataclass(frozen=True)
class LoadedRelease:
    """A release in memory."""

    manifest: ReleaseManifest
    catalogue: Catalogue
    score_maps: dict[str, ScoreMap]  # by family


def read_release(folder: Path) -> LoadedRelease:
    """Read a release folder. A model that is used twice is loaded once.

    Raises BrokenReleaseError where files are missing or cut short, or do not fit together.
    """
    try:
        manifest = read_release_manifest(folder)
        ids, metadata, active = _items(folder)
        models = _models(folder, manifest, metadata)
        score_maps = {family: ScoreMap.load(folder / saved.folder) for family, saved in manifest.families.items()}
        catalogue = Catalogue.of_release(manifest.catalogue_version, ids, metadata, active, models)
        return LoadedRelease(manifest, catalogue, score_maps)
    except (BrokenReleaseError, MemoryError):  # MemoryError: the files may be sound, and another time memory suffices
        raise
    except Exception as error:  # whatever a damaged file makes its reader raise
        raise BrokenReleaseError(f"{folder}: {error!r}") from error


def read_release_manifest(folder: Path) -> ReleaseManifest:
    """Read the manifest and check that the folder holds its files.

    Raises BrokenReleaseError where a file is missing or has another size.
    """
    try:
        manifest = msgspec.json.decode((folder / MANIFEST_FILE).read_bytes(), type=ReleaseManifest)
    except (OSError, msgspec.DecodeError) as error:
        raise BrokenReleaseError(f"{folder}: {error}") from error
    for path, size in manifest.files.items():
        if not (folder / path).is_file() or (folder / path).stat().st_size != size:
            raise BrokenReleaseError(f"{folder / path} is not there with its {size} bytes")
    return manifest


def _items(folder: Path) -> tuple[list[str], list[dict[str, Any]], Mask]:
    """Ids, metadata and activity by position."""
    table = pq.read_table(folder / ITEMS_FILE)
    if not np.array_equal(table[c.ITEM].to_numpy(), np.arange(len(table))):
        raise BrokenReleaseError(f"{folder / ITEMS_FILE}: row i is not position i")
    decode = msgspec.json.Decoder().decode
    metadata = [decode(text) for text in table[c.METADATA].to_pylist()]
    return table[c.ITEM_ID].to_pylist(), metadata, table[c.IS_ACTIVE].to_numpy().astype(bool)


def _models(folder: Path, manifest: ReleaseManifest, metadata: list[dict[str, Any]]) -> dict[str, Recommender]:
    """The models by family. A model that was trained before the newest items existed is extended to them.

    Items keep their positions from one snapshot to the next, so an older model knows the first part of the table.
    """
    loaded: dict[str, Recommender] = {}  # by folder
    models = {
        family: _model(folder, saved.folder, saved.base_models, metadata, loaded)
        for family, saved in manifest.families.items()
    }
    for family, model in models.items():
        if model.family != family:
            raise BrokenReleaseError(f"{folder}: the model of {family} is of the family {model.family}")
    return models


def _model(
    folder: Path,
    saved: str,
    base_models: dict[str, str],
    metadata: list[dict[str, Any]],
    loaded: dict[str, Recommender],
) -> Recommender:
    """The model of a folder, loaded once however many ensembles use it.

    A function that called itself as a closure would be a cycle that holds `loaded`, and so every model of a release,
    until the garbage collection after the release is dropped. A release has to be freed as soon as it is dropped.
    """
    if saved not in loaded:
        parts = {family: _model(folder, part, {}, metadata, loaded) for family, part in base_models.items()}
        model = load_model(folder / saved, parts)
        newer = np.arange(model.n_items, len(metadata), dtype=np.int32)
        loaded[saved] = model.with_items(newer, metadata[model.n_items :]) if len(newer) else model
    return loaded[saved]
