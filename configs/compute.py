"""Where the heavy steps of the pipeline run."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from configs.addresses import LOOPBACK
from configs.settings import Settings


class ComputeSettings(Settings):
    """Where heavy steps of the pipeline run. The results are the same on this machine and on a cluster."""

    engine: Literal["local", "ray"] = Field(
        default="local",
        alias="COMPUTE",
        description="local: in the process of the run; ray: as tasks on the Ray cluster at `RAY_ADDRESS`",
    )
    ray_address: str | None = Field(
        default=None, alias="RAY_ADDRESS", description="of the cluster's head, `<host>:<port>`; `COMPUTE=ray` needs it"
    )
    token_file: Path | None = Field(
        default=None,
        alias="RAY_AUTH_TOKEN_PATH",
        description="file that holds the cluster's token; None: `ray.token` in the state folder",
    )
    search_batch: int = Field(
        default=4,
        alias="SEARCH_BATCH",
        ge=1,
        description="with `COMPUTE=ray`: trials of a search that are drawn at a time and run as tasks; what a search "
        "finds depends on it, not on the size of the cluster",
    )

    @model_validator(mode="after")
    def _ray_has_an_address(self) -> Self:
        if self.engine == "ray" and not self.ray_address:
            raise ValueError("COMPUTE=ray needs RAY_ADDRESS, the host and port of the cluster's head")
        return self


def ray_environment(token_file: Path, address: str) -> dict[str, str]:
    """The variables under which every process of a cluster and every driver runs: with a token, without telemetry.

    address: of the cluster. One on loopback stays there: Ray would otherwise look for it on the machine's own address.
    """
    return {
        **({"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"} if address.startswith(LOOPBACK) else {}),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
