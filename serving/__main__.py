"""The model server's command line: `python -m serving serve`, `python -m serving releases`."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from configs.addresses import PortSettings
from configs.files import keep_state_private
from configs.serving import ServingSettings
from configs.settings import PathSettings
from configs.state_check import UnusableStateError, require_usable_state

ROOT = Path(__file__).resolve().parents[1]
KEEP_ALIVE_SECONDS = 75
KEPT_BYTES = 512 * 1024 * 1024
app = typer.Typer(add_completion=False, no_args_is_help=True, help="The model server.")


@app.command()
def serve(
    port: Annotated[int | None, typer.Option(help="Instead of SERVING_PORT.")] = None,
) -> None:
    """Serve the newest release of every tenant with BentoML. This process becomes the server."""
    try:
        require_usable_state(writes=False)
    except UnusableStateError as error:
        sys.exit(str(error))
    ports, paths, threads = PortSettings(), PathSettings(), str(ServingSettings().threads)
    paths.bentoml.mkdir(parents=True, exist_ok=True)
    if ports.beyond_loopback("serving"):
        print(
            f"the model server listens on {ports.serving_host}: put TLS in front of it, or who reads its traffic has "
            "its secret",
            file=sys.stderr,
        )
    environment = {
        **os.environ,
        "BENTOML_HOME": str(paths.bentoml),
        "BENTOML_DO_NOT_TRACK": "True",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        # One batch is answered at a time. More BLAS threads would take cores from the API.
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads),
        # By default glibc returns the buffers of each answer to the kernel and requests them again. That took a third
        # of the time of a transformer's answer.
        **dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str(KEPT_BYTES)),
    }
    command = [
        *(sys.executable, "-m", "bentoml", "serve", "serving.service:ModelServer", "--working-dir", str(ROOT)),
        *("--host", ports.serving_host, "--port", str(port or ports.serving)),
        *("--timeout-keep-alive", str(KEEP_ALIVE_SECONDS)),
    ]
    os.execve(command[0], command, environment)  # noqa: S606


@app.command("releases")
def show_releases() -> None:
    """List the releases in the store, newest first. The first of each tenant is served."""
    from serving.loading import read_release_manifest
    from serving.release import read_store, release_folder

    home = PathSettings().bentoml
    table = Table("tenant", "release", "catalogue", "families")
    listing = read_store(home)
    for tenant_id, versions in sorted(listing.releases.items()):
        for version in versions:
            manifest = read_release_manifest(release_folder(home, tenant_id, version))
            families = ", ".join(f"{family} {saved.version}" for family, saved in manifest.families.items())
            table.add_row(tenant_id, version, str(manifest.catalogue_version), families)
    for tenant_id, reason in sorted(listing.unreadable.items()):
        table.add_row(tenant_id, "unreadable", "", reason)
    Console().print(table)


if __name__ == "__main__":
    keep_state_private()
    app()
