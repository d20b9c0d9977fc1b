"""Each file of a release is cut short: of newer releases in the store, one file in each, and of the one that serves."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from configs.files import write_text
from configs.serving import ServingSettings
from serving.contracts.releases import MANIFEST_FILE
from tests.benchmarks.faults.load import FaultRow, under_load
from tests.benchmarks.new_release import newest_release
from tests.benchmarks.processor_time import processes
from tests.benchmarks.running_demo import RunningDemo, Tenant
from tests.fixtures.platform import answers, wait_until

VERSION = "%Y%m%d-%H%M%S-%f"
BENTOML_FILE = "model.yaml"
"""BentoML's own description, which no part of the product reads: cut short, it damages no release."""
POINTER = "latest"
REFUSED = "recommendai_releases_refused_total"
HELD_SECONDS = 0.2
"""How long a file of the release that serves stays cut."""


def cut_releases(demo: RunningDemo, tenant: Tenant, **_: Any) -> list[FaultRow]:
    """The damaged releases are newer than the one that serves. It goes on, also after a restart of the model server."""
    served = newest_release(demo, tenant.id)
    with _damaged(demo, served) as publish:
        names: list[str] = []

        def trouble() -> float:
            before = _refused(demo)
            names.extend(publish())
            wait_until("the refusals", lambda: _refused(demo) - before >= len(names), 300)
            return time.monotonic()

        cut = under_load("newer releases, each with a file cut short", demo, tenant, trouble)
        _judge(cut, demo, tenant, served, len(names))

        def restart() -> float:
            began = time.monotonic()
            for process in processes(demo.paths, "serving"):
                os.kill(process, signal.SIGKILL)
            wait_until(
                "the models", lambda: answers(f"{demo.serving_url}/readyz") and tenant.id in demo.releases(), 300
            )
            return began

        restarted = under_load("kill -9 serving, the newest releases cut short", demo, tenant, restart)
        _judge(restarted, demo, tenant, served, len(names))

    files = _files(served)

    def cut_each() -> float:
        for file in files:
            copy = file.with_name(f".{file.name}.whole")
            shutil.copy2(file, copy)
            os.truncate(file, file.stat().st_size // 2)
            time.sleep(HELD_SECONDS)
            copy.replace(file)
        return time.monotonic()

    inside = under_load("the release that serves, its files cut in turn", demo, tenant, cut_each)
    _judge(inside, demo, tenant, served, len(files))
    return [cut, restarted, inside]


def _judge(row: FaultRow, demo: RunningDemo, tenant: Tenant, served: Path, cut: int) -> None:
    row.notes["files_cut"] = cut
    row.promises["the release that served still serves"] = demo.releases()[tenant.id]["release"] == served.name


def _files(release: Path) -> list[Path]:
    return sorted(path for path in release.rglob("*") if path.is_file() and path.name != BENTOML_FILE)


@contextmanager
def _damaged(demo: RunningDemo, served: Path) -> Iterator[Any]:
    """A function that puts the damaged releases into the store and returns their ids. They are gone after the block."""
    store, work = served.parent, demo.paths.bentoml / "faults-releases"
    pointer = (store / POINTER).read_text()
    shutil.rmtree(work, ignore_errors=True)
    first = datetime.strptime(served.name, VERSION)
    made = []
    for number, path in enumerate(_files(served), 1):
        release = (first + timedelta(seconds=number)).strftime(VERSION)
        shutil.copytree(served, work / release, copy_function=os.link)
        manifest = work / release / MANIFEST_FILE
        text = manifest.read_text().replace(served.name, release)
        manifest.unlink()  # the others are hard links, too: a file is replaced, never written into
        manifest.write_text(text)
        victim = work / release / path.relative_to(served)
        content = victim.read_bytes()
        victim.unlink()
        victim.write_bytes(content[: len(content) // 2])
        made.append(release)

    def publish() -> list[str]:
        for release in made:
            (work / release).rename(store / release)
        write_text(store / POINTER, made[-1])
        return made

    try:
        yield publish
    finally:
        write_text(store / POINTER, pointer)
        for release in made:
            shutil.rmtree(store / release, ignore_errors=True)
        shutil.rmtree(work, ignore_errors=True)


def _refused(demo: RunningDemo) -> float:
    """How many releases the model server has refused since it started."""
    headers = {"Authorization": str(ServingSettings().with_secret(demo.paths).authorization)}
    text = httpx.get(f"{demo.serving_url}/metrics", headers=headers, timeout=60).raise_for_status().text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(REFUSED))
