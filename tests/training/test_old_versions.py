"""Old versions are deleted from a real MLflow store with runs and artefacts; those in use or within reach are kept."""

from pathlib import Path

import pytest
from mlflow.entities import ViewType
from mlflow.models import Model

from tests.fixtures.mlflow_store import mlflow_store
from training.tracking.mlflow_store import Tracking
from training.tracking.old_versions import KeptVersions, collect_garbage, delete_old_versions

TENANT = "acme"


@pytest.fixture
def store(tmp_path: Path) -> Tracking:
    return Tracking(mlflow_store(tmp_path), tmp_path / "artifacts")


def register(store: Tracking, family: str, base_models: dict[str, str] | None = None, tenant: str = TENANT) -> str:
    """A new version with a run and an artefact, made by no training. Returns its number."""
    run = store.client.create_run(store.experiment_id(tenant), tags={"family": family})
    store.client.log_text(run.info.run_id, "weights", "model/weights.npz")
    folder = Path(store.client.download_artifacts(run.info.run_id, "model"))
    Model(metadata={"base_models": base_models or {}}).save(str(folder / "MLmodel"))
    store.client.set_terminated(run.info.run_id)
    name = f"{tenant}.{family}"
    if store.model_aliases(name) is None:
        store.client.create_registered_model(name)
    version = store.client.create_model_version(name, source=folder.as_uri(), run_id=run.info.run_id)
    return str(version.version)


def left(store: Tracking, family: str, tenant: str = TENANT) -> set[str]:
    return {str(each.version) for each in store.client.search_model_versions(f"name = '{tenant}.{family}'")}


def delete(
    store: Tracking, limit: int = 100, released: dict[str, set[str]] | None = None, **kept: int
) -> tuple[int, bool]:
    keep = KeptVersions(**{"newest": 2, "rollbacks": 2, **kept})
    return delete_old_versions(store, TENANT, keep, released or {}, ["hybrid"], limit)


def test_versions_in_use_or_within_reach_of_rollbacks_are_kept_and_others_deleted(store: Tracking) -> None:
    for _ in range(12):
        register(store, "popularity")
    name = f"{TENANT}.popularity"
    for version in ("1", "2", "4", "6"):  # 6 is the champion; three rollbacks would reach 4, 2 and 1
        store.make_champion(name, version)
    store.make_challenger(name, "7")
    store.client.set_registered_model_alias(name, "of-a-person", "8")
    store.hold(name, "ada", "because", refit_of="9")
    assert delete(store, limit=1, released={"popularity": {"10"}}) == (1, True)
    assert delete(store, released={"popularity": {"10"}}) == (2, False)
    assert left(store, "popularity") == {"2", "4", "6", "7", "8", "9", "10", "11", "12"}
    assert [store.go_back(name) for _ in range(3)] == ["4", "2", None]
    assert (
        delete(store, released={"popularity": {"10"}})[0] == 2
    )  # 4 and 6 have no alias, and nothing leads back to them


def test_base_models_stay_as_long_as_the_ensemble_that_serves_with_them(store: Tracking) -> None:
    for _ in range(4):
        base = register(store, "collaborative")
        register(store, "hybrid", {"collaborative": base, "popularity": "404"})  # one that a person deleted
    store.make_champion(f"{TENANT}.hybrid", "1")
    assert delete(store, newest=1) == (4, False)
    assert left(store, "hybrid") == left(store, "collaborative") == {"1", "4"}


def test_only_the_tenants_own_versions_go_and_a_run_stays_with_a_version_of_a_person(store: Tracking) -> None:
    other = "acm_"  # where `_` stands for any character, this names the tenant as well
    for tenant in (TENANT, other):
        for _ in range(3):
            register(store, "popularity", tenant=tenant)
    first = store.version(TENANT, "popularity", "1")
    store.client.create_registered_model("mine")
    store.client.create_model_version(
        "mine", source=store.client.get_run(first.run_id).info.artifact_uri, run_id=first.run_id
    )
    assert delete(store, newest=1) == (2, False)
    assert left(store, "popularity", other) == {"1", "2", "3"}
    assert store.client.list_artifacts(first.run_id), "the person's version needs them"
    store.client.delete_registered_model("mine")
    assert delete(store, newest=1) == (0, False)
    assert store.client.get_run(first.run_id).info.lifecycle_stage == "deleted"


def test_deleted_versions_leave_no_run_no_artefact_and_no_row(store: Tracking, tmp_path: Path) -> None:
    for _ in range(3):
        register(store, "popularity")
    experiments = [store.experiment_id(TENANT)]
    newest = store.version(TENANT, "popularity", "3").run_id
    assert delete(store, newest=1) == (2, False)
    assert {path.parts[-4] for path in tmp_path.rglob("weights.npz")} == {newest}
    assert len(store.client.search_runs(experiments, run_view_type=ViewType.ALL)) == 3
    assert not collect_garbage(store, store.uri, days=0, seconds=0.01)  # too short for a process to start
    assert collect_garbage(store, store.uri, days=0, seconds=600)
    assert [run.info.run_id for run in store.client.search_runs(experiments, run_view_type=ViewType.ALL)] == [newest]
