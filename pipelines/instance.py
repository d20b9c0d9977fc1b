"""The Dagster instance of this installation, whose storage is in the state folder."""

import os
from pathlib import Path

import dagster as dg
import yaml

from configs.files import write_text
from configs.settings import PathSettings
from pipelines.jobs import EXPORTING, GENERATION, SEARCHING, TRAINING, WORK_TAG
from pipelines.partitions import TENANT_TAG

MAX_RUN_SECONDS = 6 * 3600


def instance_settings() -> dict[str, object]:
    """The content of dagster.yaml: no telemetry, and at most one training run per tenant.

    Four more runs than the trainings may be active, so that no generation, search, export or publication waits for
    them.
    """
    trainings = max(1, (os.cpu_count() or 2) // 2)
    return {
        "telemetry": {"enabled": False},
        "nux": {"enabled": False},
        "concurrency": {
            "runs": {
                "max_concurrent_runs": trainings + 4,
                "tag_concurrency_limits": [
                    {"key": TENANT_TAG, "value": {"applyLimitPerUniqueValue": True}, "limit": 1},
                    {"key": WORK_TAG, "value": TRAINING, "limit": trainings},
                    {"key": WORK_TAG, "value": GENERATION, "limit": 1},
                    {"key": WORK_TAG, "value": EXPORTING, "limit": 1},
                    {"key": WORK_TAG, "value": SEARCHING, "limit": trainings},
                ],
            }
        },
        "run_monitoring": {"enabled": True, "max_runtime_seconds": MAX_RUN_SECONDS},
        # One after the other, a slow tick of one sensor would hold up all others: a rollback is published in a minute.
        "sensors": {"use_threads": True, "num_workers": 4},
        "retention": {"sensor": {"purge_after_days": {"skipped": 1, "failure": 30, "success": 30}}},
    }


def prepare_home(paths: PathSettings) -> Path:
    """Write dagster.yaml where there is none, and set DAGSTER_HOME for this process and its children."""
    home = paths.dagster
    home.mkdir(parents=True, exist_ok=True)
    target = home / "dagster.yaml"
    if not target.exists():
        write_text(target, yaml.safe_dump(instance_settings(), sort_keys=False))
    os.environ["DAGSTER_HOME"] = str(home)
    return home


def open_instance(paths: PathSettings) -> dg.DagsterInstance:
    """The instance that the UI shows. Close it, or use it as a context manager."""
    prepare_home(paths)
    return dg.DagsterInstance.get()
