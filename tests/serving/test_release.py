"""Releases in BentoML's store: complete, newest first, without pickle, and only a few kept."""

import gc
import os
import shutil
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import bentoml
import numpy as np
import pytest
from bentoml._internal.models import ModelStore

from serving.loading import read_release_manifest
from serving.predictor import Predictor
from serving.release import ReleaseMember, list_releases, prune, publish, release_folder
from tests.fixtures.platform import ROOT
from tests.fixtures.releases import (
    CATALOGUE_VERSION,
    FAMILIES,
    TENANT,
    publish_small,
    save_member,
    small_dataset,
    write_items,
)
from training.models.registry import load_model

pytestmark = pytest.mark.fit


def test_a_release_says_what_it_holds(small_release: Path) -> None:
    manifest = read_release_manifest(small_release)
    assert (manifest.tenant_id, manifest.catalogue_version) == (TENANT, CATALOGUE_VERSION)
    assert set(manifest.families) == set(FAMILIES)
    assert manifest.release == small_release.name
    assert {path.relative_to(small_release).as_posix() for path in small_release.rglob("*") if path.is_file()} == {
        *manifest.files,
        "release.json",
        "model.yaml",
    }


def test_a_release_is_a_bentoml_model_without_pickles(small_release: Path) -> None:
    store = ModelStore(small_release.parents[1])
    model = bentoml.models.get(f"release-{TENANT}:latest", _model_store=store)
    assert model.tag.version == small_release.name
    assert model.info.labels["tenant"] == TENANT
    assert not model.custom_objects
    suffixes = {path.suffix for path in small_release.rglob("*") if path.is_file()}
    assert suffixes <= {".json", ".npz", ".parquet", ".yaml", ".safetensors", ".arrow"}


def test_the_newest_come_first_and_only_a_few_are_kept(tmp_path: Path) -> None:
    home, work = tmp_path / "home", tmp_path / "work"
    published = [publish_small(home, work, keep=3) for _ in range(4)]
    publish_small(home, work, tenant_id="books", keep=3)
    assert list_releases(home)[TENANT] == published[:0:-1]
    assert set(list_releases(home)) == {TENANT, "books"}
    assert prune(TENANT, home=home, keep=1) == published[2:0:-1]
    assert list_releases(home)[TENANT] == [published[3]]
    assert len(list_releases(home)["books"]) == 1


def test_a_release_that_is_still_being_copied_is_not_seen(tmp_path: Path) -> None:
    release = publish_small(tmp_path / "home", tmp_path / "work")
    folder = release_folder(tmp_path / "home", TENANT, release)
    shutil.copytree(folder, folder.with_name("99991231-000000-000000"))
    assert list_releases(tmp_path / "home")[TENANT] == [release]


def test_a_pointer_that_is_being_written_hides_no_release(tmp_path: Path) -> None:
    release = publish_small(tmp_path, tmp_path / "work")
    pointer = release_folder(tmp_path, TENANT, release).parent / "latest"
    pointer.write_text("")
    writing = threading.Timer(0.1, lambda: pointer.write_text(release))
    writing.start()
    assert list_releases(tmp_path) == {TENANT: [release]}
    writing.join()


def test_a_pointer_that_a_crash_left_empty_hides_no_release(tmp_path: Path) -> None:
    release = publish_small(tmp_path, tmp_path / "work")
    folder = release_folder(tmp_path, TENANT, release)
    (folder.parent / "latest").write_text("")
    (folder.parent / "99991231-000000-000000").mkdir()  # a copy that the same crash cut off
    assert list_releases(tmp_path) == {TENANT: [release]}


def test_releases_sort_by_publication_even_where_the_clock_went_back(tmp_path: Path) -> None:
    home = tmp_path / "home"
    release = publish_small(home, tmp_path / "work")
    future = "99981231-000000-000000"
    folder = release_folder(home, TENANT, release)
    folder.rename(folder.with_name(future))
    (folder.parent / "latest").write_text(future)
    assert publish_small(home, tmp_path / "work") > future


def test_a_store_without_releases_is_empty(tmp_path: Path) -> None:
    assert list_releases(tmp_path) == {}


def test_nothing_half_published_stays_behind(tmp_path: Path) -> None:
    items = write_items(small_dataset(), tmp_path / "items.parquet")
    with pytest.raises(FileNotFoundError):
        publish(TENANT, {"collaborative": ReleaseMember("1", tmp_path / "missing")}, items, 1, home=tmp_path / "home")
    with pytest.raises(ValueError, match="at least one model"):
        publish(TENANT, {}, items, 1, home=tmp_path / "home")
    assert list_releases(tmp_path / "home") == {}
    assert [path.name for path in (tmp_path / "home").rglob("*")] == [".lock"]


def test_a_model_older_than_the_item_table_learns_the_rest_at_loading(tmp_path: Path) -> None:
    newer = small_dataset()
    items = newer.items
    table = type(items)(
        np.array([*items.ids, "new"], dtype=object),
        [*items.metadata, {"genres": ["horror"], "title": "horror horror99"}],
        np.array([*items.active, True]),
    )
    path = write_items(type(newer)(newer.interactions, table, newer.n_users), tmp_path / "items.parquet")
    members = {family: save_member(family, tmp_path / family) for family in FAMILIES}
    release = publish(TENANT, members, path, 11, home=tmp_path / "home")
    predictor = Predictor.load(release_folder(tmp_path / "home", TENANT, release), 200)
    assert {model.n_items for model in predictor.catalogue.models.values()} == {61}
    assert load_model(tmp_path / "collaborative").n_items == 60


def test_a_release_is_freed_as_soon_as_it_is_dropped(small_release: Path) -> None:
    """Without a garbage collection, which would stop the answers for a moment."""
    gc.collect()
    gc.disable()
    try:
        predictor = Predictor.load(small_release, 200)
        models = [weakref.ref(model) for model in predictor.catalogue.models.values()]
        assert len(models) == len(FAMILIES)
        del predictor
        assert [model() for model in models] == [None] * len(models)
    finally:
        gc.enable()


def test_the_command_line_lists_releases_newest_first(tmp_path: Path) -> None:
    published = [publish_small(tmp_path / "bentoml", tmp_path / "work", version=version) for version in ("3", "4")]
    run = subprocess.run(
        [sys.executable, "-m", "serving", "releases"],
        cwd=ROOT,
        env={**os.environ, "RECOMMENDAI_STATE_DIR": str(tmp_path), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=True,
    )
    newest, older = (line for line in run.stdout.splitlines() if TENANT in line)
    assert published[1] in newest
    assert "collaborative 4" in newest
    assert published[0] in older
