"""`make audit ADVISORIES=...`: OSV's advisories that concern a locked version, from its export."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from configs.local.vulnerabilities import is_affected, known_vulnerabilities, locked_packages


def ranged(*events: dict[str, str]) -> dict[str, Any]:
    return {"ranges": [{"type": "ECOSYSTEM", "events": list(events)}]}


@pytest.mark.parametrize(
    ("number", "affected", "expected"),
    [
        ("1.9", ranged({"introduced": "0"}, {"fixed": "2.0"}), True),
        ("2.0", ranged({"introduced": "0"}, {"fixed": "2.0"}), False),
        ("2.0rc1", ranged({"introduced": "0"}, {"fixed": "2.0"}), True),
        ("1.10", ranged({"introduced": "1.9"}, {"fixed": "2.0"}), True),
        ("1.8", ranged({"introduced": "1.9"}, {"fixed": "2.0"}), False),
        ("2.0", ranged({"introduced": "1.0"}, {"last_affected": "2.0"}), True),
        ("2.0.1", ranged({"introduced": "1.0"}, {"last_affected": "2.0"}), False),
        ("9.0", ranged({"introduced": "3.0"}), True),
        ("3.5", ranged({"introduced": "1"}, {"fixed": "2"}, {"introduced": "3"}, {"fixed": "4"}), True),
        ("2.5", ranged({"introduced": "1"}, {"fixed": "2"}, {"introduced": "3"}, {"fixed": "4"}), False),
        ("1.2", {"versions": ["1.1", "1.2"]}, True),
        ("1.3", {"versions": ["1.1", "1.2"]}, False),
        ("1.3", {"ranges": [{"type": "GIT", "events": [{"introduced": "0"}]}]}, False),
    ],
)
def test_a_version_is_affected_as_the_schema_says(number: str, affected: dict[str, Any], expected: bool) -> None:
    assert is_affected(number, affected) is expected


def record(identity: str, name: str, **more: Any) -> dict[str, Any]:
    affected = {"package": {"ecosystem": "PyPI", "name": name}, **ranged({"introduced": "0"}, {"fixed": "2.0"})}
    return {"id": identity, "summary": "bad", "affected": [affected], **more}


def test_the_locked_packages_are_looked_up_in_the_export(tmp_path: Path) -> None:
    lock = tmp_path / "some.lock"
    lock.write_text("some-thing==1.4 ; sys_platform == 'linux' \\\n    --hash=sha256:00\nother==3.0\n")
    packages = {pair for pair in locked_packages([lock]) if pair[0] in ("some-thing", "other")}
    assert packages == {("some-thing", "1.4"), ("other", "3.0")}
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for each in (
            record("PYSEC-1", "Some_Thing"),
            record("PYSEC-2", "other"),
            record("PYSEC-3", "some-thing", withdrawn="2026-01-01T00:00:00Z"),
            record("PYSEC-4", "elsewhere"),
        ):
            file.writestr(f"{each['id']}.json", json.dumps(each))
    (found,) = known_vulnerabilities(packages, archive)
    assert (found.id, found.package, found.version, found.fixed) == ("PYSEC-1", "some-thing", "1.4", ("2.0",))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="holds no advisory"):
        known_vulnerabilities(packages, empty)
