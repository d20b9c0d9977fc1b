"""`make lock` changes both locks or none. In place of the resolver, which needs the network, a script stands."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("requirements.lock", "requirements-dev.lock")
RESOLVER = """#!/bin/sh
# Empties its output file; the call whose number is in the file `fails` ends with an error afterwards.
echo call >> calls
while [ "$1" != --output-file ]; do shift; done
: > "$2"
[ "$(wc -l < calls)" -ne "$(cat fails)" ]
"""


@pytest.mark.parametrize("fails", [0, 1, 2, 3])
def test_a_resolution_that_fails_leaves_both_locks_as_they_were(fails: int, tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", *LOCKS):
        shutil.copy(ROOT / name, tmp_path)
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, text in (("python", "#!/bin/sh\n"), ("uv", RESOLVER)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (tmp_path / "fails").write_text(str(fails))
    ended = subprocess.run(["make", "lock"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ended.returncode == 0) == (fails == 0), ended.stderr
    assert len((tmp_path / "calls").read_text().splitlines()) == (fails or 3)
    for name in LOCKS:
        expected = (ROOT / name).read_text() if fails else ""
        assert (tmp_path / name).read_text() == expected
