"""Every process finds the same Dagster instance in the state folder."""

import os
from pathlib import Path

import pytest

from configs.settings import PathSettings
from pipelines.instance import open_instance
from pipelines.partitions import TENANT_TAG


def test_a_tenant_has_one_training_at_a_time_a_generation_its_own_place_and_nothing_phones_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "/nowhere")
    with open_instance(PathSettings(state_dir=tmp_path)) as instance:
        assert instance.root_directory == str(tmp_path / "dagster")
        assert not instance.telemetry_enabled
        limits = instance.get_concurrency_config().run_queue_config
        assert limits is not None
        trainings = max(1, (os.cpu_count() or 2) // 2)
        assert limits.max_concurrent_runs == trainings + 4
        assert limits.tag_concurrency_limits == [
            {"key": TENANT_TAG, "value": {"applyLimitPerUniqueValue": True}, "limit": 1},
            {"key": "recommendai/work", "value": "training", "limit": trainings},
            {"key": "recommendai/work", "value": "generation", "limit": 1},
            {"key": "recommendai/work", "value": "exports", "limit": 1},
            {"key": "recommendai/work", "value": "search", "limit": trainings},
        ]
        instance.add_dynamic_partitions("tenants", ["acme"])
    with open_instance(PathSettings(state_dir=tmp_path)) as again:
        assert again.get_dynamic_partitions("tenants") == ["acme"]


def test_an_operators_dagster_yaml_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "/nowhere")
    own = tmp_path / "dagster" / "dagster.yaml"
    own.parent.mkdir()
    own.write_text("telemetry: {enabled: false}\nconcurrency: {runs: {max_concurrent_runs: 7}}\n")
    with open_instance(PathSettings(state_dir=tmp_path)) as instance:
        limits = instance.get_concurrency_config().run_queue_config
        assert limits is not None
        assert limits.max_concurrent_runs == 7
