"""Files of a tenant's rows that its administrators ask for."""

from pydantic import Field

from configs.settings import Settings


class ExportSettings(Settings):
    """Bounds on files that the pipeline writes for `POST /api/exports`."""

    hours: int = Field(
        default=24, alias="EXPORT_HOURS", ge=1, le=168, description="for which a file is kept and its link works"
    )
    max_mb: int = Field(
        default=4096, alias="EXPORT_MAX_MB", ge=1, description="size of a file; larger exports fail and say so"
    )
