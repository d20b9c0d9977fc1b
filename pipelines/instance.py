"""The Dagster instance of this installation, whose storage is in the state folder."""

import os
from pathlib import Path
from typing import Any

import dagster as dg

from configs.settings import PathSettings
from pipelines.instance_file import bring_up_to_date
from pipelines.jobs import EXPORTING, GENERATION, SEARCHING, TRAINING, WORK_TAG
from pipelines.partitions import TENANT_TAG

MAX_RUN_SECONDS = 6 * 3600
"""A run that takes longer is ended, so that the runs of others have their turn."""
MONITOR_SECONDS = 30
"""How often the daemon looks for runs whose process has died."""
MAX_RUN_RETRIES = 2
"""How often a run is started again that was cut off, such as by a restart of Dagster."""


def instance_settings() -> dict[str, Any]:
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
        "run_monitoring": {
            "enabled": True,
            "max_runtime_seconds": MAX_RUN_SECONDS,
            "poll_interval_seconds": MONITOR_SECONDS,
        },
        # A run that was cut off goes on in a new run at the step that it was in. A step that fails would fail again.
        "run_retries": {"enabled": True, "max_retries": MAX_RUN_RETRIES, "retry_on_asset_or_op_failure": False},
        # A queued run waits while the code server starts; else it would fail at once.
        "run_queue": {"max_user_code_failure_retries": 20, "user_code_failure_retry_delay": 15},
        # One after the other, a slow tick of one sensor would hold up all others: a rollback is published in a minute.
        "sensors": {"use_threads": True, "num_workers": 4},
        "retention": {"sensor": {"purge_after_days": {"skipped": 1, "failure": 30, "success": 30}}},
    }


def prepare_home(paths: PathSettings) -> Path:
    """Bring dagster.yaml up to date, and set DAGSTER_HOME for this process and its children."""
    home = paths.dagster
    home.mkdir(parents=True, exist_ok=True)
    bring_up_to_date(home / "dagster.yaml", instance_settings())
    os.environ["DAGSTER_HOME"] = str(home)
    return home


def open_instance(paths: PathSettings) -> dg.DagsterInstance:
    """The instance that the UI shows. Close it, or use it as a context manager."""
    prepare_home(paths)
    return dg.DagsterInstance.get()
