"""Assets pass JSON to each other, in one file per asset and tenant."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from pipelines.io_managers import JsonIOManager
from pipelines.partitions import TENANTS, tenants

pytestmark = pytest.mark.service


@dg.asset(partitions_def=tenants)
def thing(context: dg.AssetExecutionContext) -> dict[str, Any]:
    return {"of": context.partition_key, "n": 1.5}


@dg.asset(partitions_def=tenants)
def reader(thing: dict[str, Any]) -> dict[str, Any]:
    return {"read": thing}


@dg.asset(partitions_def=tenants)
def foreign() -> Any:
    return Path("/")


def materialize(folder: Path, instance: dg.DagsterInstance, assets: list[dg.AssetsDefinition], tenant: str) -> Any:
    instance.add_dynamic_partitions(TENANTS, [tenant])
    resources = {"io_manager": JsonIOManager(folder=str(folder))}
    return dg.materialize(assets, partition_key=tenant, resources=resources, instance=instance)


def test_each_tenant_has_its_own_value(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    for tenant in ("acme", "beta"):
        result = materialize(tmp_path, instance, [thing, reader], tenant)
        assert result.output_for_node("reader") == {"read": {"of": tenant, "n": 1.5}}
    files = sorted(file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*.json"))
    assert files == ["reader/acme.json", "reader/beta.json", "thing/acme.json", "thing/beta.json"]
    assert (tmp_path / "thing" / "acme.json").read_text() == '{\n "of": "acme",\n "n": 1.5\n}'


def test_a_value_that_is_no_json_is_refused(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        materialize(tmp_path, instance, [foreign], "acme")
    assert not list(tmp_path.rglob("*.json"))
