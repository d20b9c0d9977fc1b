"""The environment of the peers: built once from their own lock, apart from ours."""

import hashlib
import shutil
import subprocess
from pathlib import Path

PEERS = Path(__file__).resolve().parents[1] / "peers"
LOCK = PEERS / "requirements.lock"
PYTHON = "python3.11"
"""What the lock was resolved for."""
TORCH = "torch>=2.13,<2.14"
BUILT = "lock.sha256"


def python_of_peers(folder: Path) -> Path:
    """The interpreter of the environment in `folder`, which is built where it is not, or is of another lock.

    torch is not locked: pip installs the build that this machine is set up to find.

    Raises:
        FileNotFoundError: no Python 3.11 on the path.
        subprocess.CalledProcessError: pip failed; it has said why.
    """
    python, digest = folder / "bin" / "python", hashlib.sha256(LOCK.read_bytes()).hexdigest()
    built = folder / BUILT
    if built.exists() and built.read_text() == digest:
        return python
    interpreter = shutil.which(PYTHON)
    if interpreter is None:
        raise FileNotFoundError(f"the peers need {PYTHON}, which is not on the path; --models names only what is ours")
    subprocess.run([interpreter, "-m", "venv", "--clear", str(folder)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, TORCH], check=True)
    subprocess.run([*pip, "--require-hashes", "--no-deps", "-r", str(LOCK)], check=True)
    built.write_text(digest)
    return python
