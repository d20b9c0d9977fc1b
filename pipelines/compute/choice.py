"""The implementation of `Compute` that the settings name."""

from configs.compute import ComputeSettings
from configs.settings import PathSettings
from pipelines.compute.local import LocalCompute
from pipelines.compute.port import Compute


def compute_of(settings: ComputeSettings, paths: PathSettings) -> Compute:
    """The engine of this installation. It connects to its cluster when it is first used, not here.

    Raises ImportError with advice where Ray is chosen and not installed.
    """
    if settings.engine == "local":
        return LocalCompute()
    from pipelines.compute.ray_cluster import RayCompute

    token_file = settings.token_file or paths.ray_token_file
    return RayCompute(str(settings.ray_address), token_file)  # the settings refuse COMPUTE=ray without an address
