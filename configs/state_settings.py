"""Where an installation keeps lake, features, releases and generated files: its state folder, or an object store."""

import os
from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from configs.settings import PathSettings, Settings

IN_OBJECT_STORE = ("lake", "features", "bentoml", "recommendations")
"""Folders in the state folder whose files are in the object store where one is set."""

_URL = "STATE_URL"


class StateSettings(Settings):
    """Where lake, features, releases and generated files are. Credentials come from the environment: see operations."""

    model_config = SettingsConfigDict(env_ignore_empty=True, case_sensitive=True)

    url: str | None = Field(
        default=None,
        alias=_URL,
        pattern=r"^(s3|gs|az)://[^/?#@]+(/[^?#]*)?$",
        description="object store of lake, features, releases and generated files, such as `s3://bucket/prefix`; None: "
        "the state folder",
    )
    endpoint: str | None = Field(
        default=None,
        alias="AWS_ENDPOINT_URL",
        pattern=r"^https?://[^@]+$",
        description="of a store that speaks S3's protocol; None: Amazon's",
    )
    timeout_seconds: float = Field(
        default=60.0, alias="STATE_TIMEOUT_SECONDS", gt=0, description="of one request to the object store"
    )
    retry_seconds: float = Field(
        default=60.0,
        alias="STATE_RETRY_SECONDS",
        ge=0,
        le=280,
        description="for which a request that failed is tried again, 8 times at most",
    )
    fetched_bytes: int = Field(
        default=50 * 1024**3,
        alias="STATE_FETCHED_BYTES",
        ge=1,
        description="of files of the object store that a process holds on its disk while it runs",
    )
    release_cache_bytes: int = Field(
        default=20 * 1024**3,
        alias="SERVING_RELEASE_CACHE_BYTES",
        ge=1,
        description="of releases that the model server keeps on its disk; it keeps the newest one it loads in any case",
    )

    @classmethod
    def has_url(cls) -> bool:
        """Whether the environment names an object store. It is asked often, and reading all settings takes 0.2 ms."""
        return bool(os.environ.get(_URL))

    def prefix_of(self, location: Path, paths: PathSettings) -> str | None:
        """The prefix of the objects in place of a folder's files; None for a folder of this machine."""
        if self.url is None or not location.absolute().is_relative_to(paths.root):
            return None
        prefix = location.absolute().relative_to(paths.root)
        return prefix.as_posix() if prefix.parts[:1] and prefix.parts[0] in IN_OBJECT_STORE else None
