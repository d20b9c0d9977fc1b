"""Generated operations against a live server: `schemathesis run` with all checks finds nothing."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from api.app import Configuration, create_app
from tests.api.conftest import Tenants
from tests.fixtures.live import served

ITEMS = [f"item-{number}" for number in range(20)]
ARGUMENTS: dict[str, list[Any]] = {
    "userId": ["ann", "bob", "未知", "a/b", "x" * 256],
    "itemId": ITEMS,
    "count": [1, 5, 100],
    "algorithm": ["collaborative", "content-based", "hybrid", "deep-learning"],
    "interactionType": ["view", "click", "like", "purchase"],
    "value": [0.0, 0.5, 1.0],
}
"""What the reference says of arguments that GraphQL's own types cannot say."""


def configuration_of(key: str) -> str:
    """`schemathesis.toml`. JSON's lists and strings are TOML's too."""
    return "\n".join(
        [
            f"headers = {{ X-API-Key = {json.dumps(key)} }}",
            *(f"[dictionaries.{name}]\nvalues = {json.dumps(values)}" for name, values in ARGUMENTS.items()),
            "[parameters]",
            *(f'"*.*.{name}" = {{ dictionary = "{name}", probability = 1.0 }}' for name in ARGUMENTS),
        ]
    )


def test_schemathesis_finds_nothing(configuration: Configuration, tenants: Tenants, tmp_path: Path) -> None:
    key = tenants.key(tenants.create(), rate_limit=0)
    with served(create_app(configuration)) as url:
        rows = [{"id": id_, "metadata": {"title": id_}} for id_ in ITEMS]
        assert httpx.post(f"{url}/api/items/batch", json={"items": rows}, headers=key).json()["failed"] == 0
        (tmp_path / "schemathesis.toml").write_text(configuration_of(key["X-API-Key"]))
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(tmp_path / "schemathesis.toml")),
                *("--no-color", "run", f"{url}/graphql", "--checks", "all", "--max-examples", "25"),
                *("--seed", "1", "--generation-database", "none"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 tested" in done.stdout or "5 selected" in done.stdout, done.stdout
