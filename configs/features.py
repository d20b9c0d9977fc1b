"""How the pipeline builds feature snapshots."""

from pydantic import Field

from configs.settings import Settings


class FeatureSettings(Settings):
    """Ranges of users in which the events of a large snapshot are built. They change no snapshot."""

    range_events: int = Field(
        default=4_000_000,
        alias="FEATURE_RANGE_EVENTS",
        ge=1,
        description="events of a range, about; a tenant with no more is built in one step",
    )
    task_memory_mb: int = Field(
        default=2048,
        alias="FEATURE_TASK_MEMORY_MB",
        ge=256,
        description="memory of the database of one range, more is written to disk; its process takes up to 1 GB more",
    )
