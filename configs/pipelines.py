"""When the pipeline runs by itself, and what its runs may take."""

import os

from pydantic import Field

from configs.settings import Settings, Words


class PipelineSettings(Settings):
    """When the pipeline runs by itself, and the resources of a training."""

    retrain_after: int = Field(
        default=5_000, alias="RETRAIN_AFTER_INTERACTIONS", ge=1, description="new interactions that start a retraining"
    )
    first_model_after: int = Field(
        default=1_000, alias="FIRST_MODEL_AFTER_INTERACTIONS", ge=1, description="interactions that a training needs"
    )
    nightly_cron: str = Field(
        default="0 3 * * *", alias="RETRAIN_CRON", description="of the nightly retraining, in UTC"
    )
    erase_after_hours: float = Field(
        default=12.0,
        alias="ERASE_AFTER_HOURS",
        ge=0,
        le=23,
        description="an erasure that has waited for so long starts an export",
    )
    automation: bool = Field(
        default=False, alias="PIPELINE_AUTOMATION", description="schedules and sensors start switched on"
    )
    train_seconds: float = Field(default=600.0, alias="TRAIN_MAX_SECONDS", gt=0, description="per model family")
    train_threads: int = Field(
        default_factory=lambda: os.cpu_count() or 1, alias="TRAIN_THREADS", ge=1, description="of a fit"
    )
    train_processes: int = Field(
        default=1,
        alias="TRAIN_PROCESSES",
        ge=1,
        description="that train `deep-learning` together on the engine of `COMPUTE`, with one thread each and on CPUs",
    )
    train_memory_mb: float | None = Field(
        default=None,
        alias="TRAIN_MEMORY_MB",
        gt=0,
        description="MB; a training expected to take more is refused before it starts; none: what the machine has",
    )
    evaluated_users: int = Field(
        default=20_000,
        alias="EVALUATED_USERS",
        ge=100,
        description="largest number of users that a model is measured on; of more, a sample of this size is drawn",
    )
    train_device: str = Field(default="cpu", alias="TRAIN_DEVICE", description="cpu, cuda or cuda:<n>")
    search_minutes_per_day: float = Field(
        default=360.0,
        alias="SEARCH_MINUTES_PER_DAY",
        ge=0,
        description="that searches for better hyper-parameters take of any 24 hours, all tenants together",
    )
    search_runs: int = Field(
        default=1, alias="SEARCH_RUNS", ge=1, description="searches that run at once, while no training waits or runs"
    )
    generation_turn_seconds: float = Field(
        default=120.0,
        alias="GENERATION_TURN_SECONDS",
        ge=0,
        description="a turn of a tenant's bulk generation, after which one of another tenant that waits has its turn",
    )
    owners: Words = Field(
        default=("team:recommendations",),
        alias="PIPELINE_OWNERS",
        description="whom Dagster names as owners of each asset: mail addresses, or `team:<name>`",
    )
    source_url: str | None = Field(
        default=None,
        alias="SOURCE_URL",
        pattern=r"^https?://",
        description="where the repository's files are shown, for links to the code: "
        "`https://github.com/<owner>/<repository>/blob/<branch>`",
    )
