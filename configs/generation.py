"""Where bulk generation stores recommendations."""

from typing import Literal

from pydantic import Field

from configs.settings import Settings


class GenerationSettings(Settings):
    """Where the recommendations of generation jobs go. The lists are the same in both."""

    target: Literal["postgres", "parquet"] = Field(
        default="postgres",
        alias="GENERATION_TARGET",
        description="postgres: rows of the database, which the API shows; parquet: files in the folder "
        "`recommendations` of the state folder or of the object store",
    )
    file_days: int = Field(
        default=30,
        alias="GENERATION_FILE_DAYS",
        ge=1,
        description="for which the Parquet files of a generation job are kept after it completed",
    )
