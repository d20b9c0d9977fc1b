"""What the demo remembers between calls: secrets and finished steps."""

from collections.abc import Callable
from pathlib import Path

from configs.files import write_private


class DemoState:
    """Secrets and finished steps, kept as `KEY=value` lines in one private file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self._values = dict(line.split("=", 1) for line in lines)

    def get(self, key: str) -> str:
        """The value of a key, or the empty string."""
        return self._values.get(key, "")

    def put(self, key: str, value: str) -> None:
        """Store a value."""
        self._values[key] = value
        write_private(self._path, "".join(f"{key}={value}\n" for key, value in self._values.items()))

    def keep(self, key: str, make: Callable[[], str]) -> str:
        """The value of a key, which is made and stored where there is none."""
        if not self.get(key):
            self.put(key, make())
        return self.get(key)
