"""Migrations expand: an API of the version before goes on over the new schema (docs/operations.md).

What it still reads or writes is taken away one version later. Such a migration says why nothing uses it any more.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = ROOT / "api" / "database" / "migrations" / "versions"
LAST_WITHOUT_RULE = "0024"
CONTRACT = re.compile(r'^CONTRACTS = ".{20,}"$', re.MULTILINE)
"""`CONTRACTS = "why the version before does not use what goes"` in a migration that takes something away."""
TAKES_AWAY = re.compile(
    r"\bDROP\s+(TABLE|COLUMN)\b|\bRENAME\s+(TO|COLUMN)\b|\bALTER\s+COLUMN\s+\w+\s+(SET\s+DATA\s+)?TYPE\b"
    r"|\bSET\s+NOT\s+NULL\b|\bADD\s+COLUMN\s+(?:(?!,|DEFAULT).)*\bNOT\s+NULL\b(?!(?:(?!,\s*ADD).)*\bDEFAULT\b)",
    re.IGNORECASE | re.DOTALL,
)
CALLS = {"drop_table", "drop_column", "rename_table"}


def takes_away(source: str) -> list[str]:
    """What the function `upgrade` of this migration does that a program of the version before may not survive."""
    tree = ast.parse(source)
    constants = {
        target.id: ast.unparse(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "upgrade"]
    found = []
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CALLS:
            found.append(node.func.attr)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "alter_column":
            found += [f"alter_column {word.arg}" for word in node.keywords if word.arg in ("new_column_name", "type_")]
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found += [match[0] for match in TAKES_AWAY.finditer(node.value)]
        if isinstance(node, ast.Name) and node.id in constants:
            found += [match[0] for match in TAKES_AWAY.finditer(constants[node.id])]
    return found


@pytest.mark.parametrize(
    ("statement", "refused"),
    [
        ("ALTER TABLE a ADD COLUMN b TEXT", False),
        ("ALTER TABLE a ADD COLUMN b TEXT NOT NULL DEFAULT ''", False),
        ("ALTER TABLE a ADD COLUMN b TEXT DEFAULT '' NOT NULL", False),
        ("ALTER TABLE a ADD COLUMN b TEXT NOT NULL", True),
        ("ALTER TABLE a ALTER COLUMN b SET NOT NULL", True),
        ("ALTER TABLE a ALTER COLUMN b TYPE bigint", True),
        ("ALTER TABLE a RENAME TO b", True),
        ("ALTER TABLE a DROP COLUMN b", True),
        ("CREATE TABLE a (id TEXT NOT NULL)", False),
        ("DROP INDEX a_idx", False),
    ],
)
def test_the_rule_knows_what_takes_away(statement: str, refused: bool) -> None:
    assert bool(takes_away(f'def upgrade():\n    op.execute("{statement}")')) is refused


def test_new_migrations_take_nothing_away_that_the_version_before_uses() -> None:
    wrong = {
        path.name: found
        for path in sorted(VERSIONS.glob("[0-9]*.py"))
        if path.name[:4] > LAST_WITHOUT_RULE
        and (found := takes_away(source := path.read_text()))
        and not CONTRACT.search(source)
    }
    assert not wrong, "expand first and contract a version later, or say in CONTRACTS why nothing uses it"
