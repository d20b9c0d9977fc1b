"""The implementation of `Compute` that the settings name."""

from configs.compute import ComputeSettings
from pipelines.compute.local import LocalCompute
from pipelines.compute.port import Compute


def compute_of(settings: ComputeSettings) -> Compute:
    """The engine of this installation. It connects to its cluster when it is first used, not here.

    Raises ImportError with advice where Ray is chosen and not installed.
    """
    if settings.engine == "local":
        return LocalCompute()
    try:
        from pipelines.compute.ray_cluster import RayCompute
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise ImportError("COMPUTE=ray needs Ray: pip install 'recommendai[ray]'") from error
    return RayCompute(str(settings.ray_address))  # the settings refuse COMPUTE=ray without it
