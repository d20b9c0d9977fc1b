"""`make audit ADVISORIES=FILE`: known vulnerabilities of the locked packages, from OSV's export, without a network.

    python -m configs.local.vulnerabilities ADVISORIES LOCK...

ADVISORIES is the archive `all.zip` that OSV (https://osv.dev) exports for the ecosystem PyPI, or a folder of its files.
Format: https://ossf.github.io/osv-schema. Status 1 where a package has an advisory.
"""

import json
import re
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

UNLOCKED = ("torch", "torchrec", "fbgemm-gpu", "fbgemm-gpu-cpu", "nvidia-ml-py")
"""Packages that are installed beside the lock (decision 1); of these, the installed version is looked at."""
FIRST = Version("0.dev0")


@dataclass(frozen=True)
class Advisory:
    """One known vulnerability of one package in one version."""

    package: str
    version: str
    id: str
    summary: str
    fixed: tuple[str, ...]  # versions that have it no more


def known_vulnerabilities(packages: set[tuple[str, str]], advisories: Path) -> list[Advisory]:
    """Advisories that concern these packages, given by name and version.

    Raises FileNotFoundError without advisories, ValueError for an archive or a folder that holds none.
    """
    by_name: dict[str, list[str]] = {}
    for name, number in packages:
        by_name.setdefault(normal_name(name), []).append(number)
    found, count = [], 0
    for record in _records(advisories):
        count += 1
        if "withdrawn" in record:
            continue
        for affected in record.get("affected", ()):
            package = affected.get("package", {})
            name = normal_name(package.get("name", ""))
            if package.get("ecosystem") != "PyPI" or name not in by_name:
                continue
            fixed = tuple(
                event["fixed"] for part in affected.get("ranges", ()) for event in part["events"] if "fixed" in event
            )
            found += [
                Advisory(name, number, record["id"], record.get("summary", ""), fixed)
                for number in by_name[name]
                if is_affected(number, affected)
            ]
    if not count:
        raise ValueError(f"{advisories} holds no advisory")
    return sorted(found, key=lambda each: (each.package, each.id))


def is_affected(number: str, affected: dict[str, Any]) -> bool:
    """Whether OSV's entry `affected` covers this version: by its list of versions, or by one of its ranges."""
    if number in affected.get("versions", ()):
        return True
    return any(_in_range(number, part["events"]) for part in affected.get("ranges", ()) if part["type"] == "ECOSYSTEM")


def locked_packages(locks: list[Path], here: bool = False) -> set[tuple[str, str]]:
    """Name and version of every package in these locks, and of those that are installed beside them.

    here: only those that this machine and this Python need.
    """
    found = set()
    for line in (line.rstrip("\\ ") for lock in locks for line in lock.read_text().splitlines()):
        if re.match(r"[a-z0-9]", line):
            requirement = Requirement(line)
            if not here or requirement.marker is None or requirement.marker.evaluate():
                (exact,) = requirement.specifier
                found.add((requirement.name, exact.version))
    for name in UNLOCKED:
        try:
            found.add((name, version(name).partition("+")[0]))
        except PackageNotFoundError:
            continue  # the other build is installed
    return found


def _in_range(number: str, events: list[dict[str, str]]) -> bool:
    """OSV's evaluation: events in the order of their versions switch between affected and not."""
    this, affected = Version(number), False
    known = [(at, kind) for event in events for kind, text in event.items() if (at := _version(text)) is not None]
    for at, kind in sorted(known, key=lambda pair: pair[0]):
        if kind == "introduced" and this >= at:
            affected = True
        elif (kind == "fixed" and this >= at) or (kind == "last_affected" and this > at):
            affected = False
    return affected


def _version(text: str) -> Version | None:
    if text == "0":
        return FIRST
    try:
        return Version(text)
    except InvalidVersion:  # of before PEP 440; none of the versions that are locked
        return None


def _records(advisories: Path) -> Iterator[dict[str, Any]]:
    if advisories.is_dir():
        for path in sorted(advisories.rglob("*.json")):
            yield json.loads(path.read_bytes())
        return
    with zipfile.ZipFile(advisories) as archive:
        for name in archive.namelist():
            if name.endswith(".json"):
                yield json.loads(archive.read(name))


def normal_name(name: str) -> str:
    """The name as PEP 503 writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> None:
    """Print what is known of the locked packages. Status 0 where nothing is."""
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    packages = locked_packages([Path(name) for name in sys.argv[2:]])
    found = known_vulnerabilities(packages, Path(sys.argv[1]))
    for each in found:
        print(
            f"{each.package} {each.version}: {each.id} {each.summary} (fixed in {', '.join(each.fixed) or 'nothing'})"
        )
    print(f"{len(packages)} packages, {len(found)} known vulnerabilities", file=sys.stderr)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
