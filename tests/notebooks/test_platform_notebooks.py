"""The notebooks that read a running platform: a lake, a registry and a release, made without its services."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from html import unescape
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from configs.settings import PathSettings
from feature_store.interaction_types import TYPE_CODES
from feature_store.lake import TenantLake
from feature_store.schemas import LAKE_INTERACTIONS, LAKE_ITEMS
from feature_store.snapshot_files import snapshot_folder
from feature_store.snapshots import build_snapshot
from serving.release import ReleaseMember, publish
from tests.fixtures.mlflow_store import mlflow_store
from tests.notebooks.test_notebooks import FOLDER, run
from tests.training.catalogue import build_dataset
from training.data.dataset import load_snapshot
from training.models.contract import RuntimeOptions
from training.tracking.mlflow_store import Tracking
from training.train import train_family

pytestmark = pytest.mark.fit

TENANT = "acme"
HOSTILE = '=HYPERLINK("x")<script>alert(1)</script> $x$`|'
USER = "person-"


def fill_lake(paths: PathSettings) -> None:
    """The small world of the training tests as a lake. The most chosen item has a hostile title."""
    world, at = build_dataset(), datetime(2024, 6, 1, tzinfo=UTC)
    events, names = world.interactions, list(TYPE_CODES)
    rows = [
        (str(number), f"{USER}{user}", f"item-{item}", names[kind], None, when, at, None)
        for number, (user, item, kind, when) in enumerate(
            zip(events.users, events.items, events.types, events.timestamps.tolist(), strict=True)
        )
    ]
    columns = [
        pa.array(column).cast(field.type)
        for column, field in zip(zip(*rows, strict=True), LAKE_INTERACTIONS, strict=True)
    ]
    top = int(max(range(world.n_items), key=(events.items.tolist()).count))
    items = [
        (f"item-{item}", json.dumps({**metadata, **({"title": HOSTILE} if item == top else {})}), True, at)
        for item, metadata in enumerate(world.items.metadata)
    ]
    item_columns = [
        pa.array(column).cast(field.type) for column, field in zip(zip(*items, strict=True), LAKE_ITEMS, strict=True)
    ]
    lake = TenantLake(paths.lake, TENANT)
    with lake.exporting():
        lake.append_interactions([pa.record_batch(columns, schema=LAKE_INTERACTIONS)], 10)
        lake.write_items([pa.record_batch(item_columns, schema=LAKE_ITEMS)], 1)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracking]:
    """Two versions of two families, of which one serves."""
    root = tmp_path_factory.mktemp("platform")
    paths = PathSettings(state_dir=root)
    fill_lake(paths)
    manifest = build_snapshot(paths.lake, paths.features, TENANT)
    snapshot = snapshot_folder(paths.features, TENANT, manifest.snapshot_id)
    dataset = load_snapshot(snapshot)
    tracking = Tracking(mlflow_store(root), root / "artifacts")
    members = {}
    for family in ("collaborative", "popularity"):
        trained = train_family(family, dataset, options=RuntimeOptions(threads=1))
        first = tracking.log(trained, TENANT)
        tracking.promote_by_hand(TENANT, family, first.version, by="somebody", reason="the first of its family")
        tracking.log(trained, TENANT)
        trained.save_served(root / "served" / family)
        members[family] = ReleaseMember(first.version, root / "served" / family)
    publish(TENANT, members, snapshot / "items.parquet", manifest.catalogue_version, home=paths.bentoml)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RECOMMENDAI_STATE_DIR", str(root))
        environment.setenv("MLFLOW_TRACKING_URI", tracking.uri)
        environment.delenv("TENANT", raising=False)
        yield tracking


def shown(names: dict[str, Any], *frames: str) -> str:
    """What a reader of the notebook sees of these frames, as HTML."""
    return "".join(names[frame]._repr_html_() for frame in frames)


def test_a_lake_is_read_in_place_and_foreign_text_stays_text(registry: Tracking) -> None:
    names = run(FOLDER / "tenant_lake.ipynb")
    assert names["tenant"] == TENANT
    assert names["by_type"]["interactions"].sum() == len(build_dataset().interactions) == names["per_user"].sum()
    html = shown(names, "by_type", "popular", "tail")
    assert "<script>" not in html and "<script>alert(1)</script>" in unescape(html)
    assert USER not in html
    lines = names["exported"].getvalue().splitlines()
    assert any("'=HYPERLINK" in line for line in lines) and not any(
        line.partition(",")[2].startswith('"=') for line in lines
    )
    assert 0 < names["returning"] <= 1 and names["tail"]["items"].item() == build_dataset().n_items


def test_versions_are_compared_from_the_registry(registry: Tracking) -> None:
    names = run(FOLDER / "compare_versions.ipynb")
    versions = names["versions"]
    assert set(versions["family"]) == {"collaborative", "popularity"}
    assert versions.query("aliases == 'champion'")["version"].tolist() == [1, 1]
    assert (versions["low"] <= versions["ndcg@10"]).all() and (versions["ndcg@10"] <= versions["high"]).all()
    assert {("newest", "warm"), ("champion", "warm")} <= set(names["segments"].index)
    assert names["different"].empty and names["card"].startswith("## collaborative of acme, version 2")
    assert "promoted by somebody: the first of its family" in names["reasons"]["reason"].tolist()


def test_a_list_is_taken_apart(registry: Tracking) -> None:
    names = run(FOLDER / "why_this_list.ipynb")
    assert names["chosen"] == "collaborative" and len(names["listed"]) == 10
    liked = {names["title"](item) for item in names["popular"]}
    because = [title for text in names["listed"]["because of"] for title in text.split(", ") if title]
    assert because and set(because) <= liked
    assert names["overlap"].loc["popularity", "popularity"] == 10
    assert names["effects"].max() > 0 and USER not in shown(names, "listed", "overlap")


def test_an_idea_becomes_a_version_that_serves_nobody(registry: Tracking) -> None:
    before = registry.champion(TENANT, "popularity")
    names = run(FOLDER / "idea_to_version.ipynb")
    ref, tags = names["ref"], registry.client.get_run(names["ref"].run_id).data.tags
    assert names["best"] in names["tried"] and names["verdict"] in ("better", "worse", "not shown to differ")
    assert names["difference"].low <= names["difference"].mean <= names["difference"].high
    assert registry.report(ref).config.half_life_days == names["best"]
    assert tags["positions_id"] and tags["experiment"] and registry.champion(TENANT, "popularity") == before != ref


def test_the_new_notebooks_are_among_those_without_outputs() -> None:
    wanted = {"tenant_lake", "compare_versions", "why_this_list", "idea_to_version"}
    assert wanted <= {path.stem for path in Path(FOLDER).glob("*.ipynb")}
