"""Schemathesis finds nothing: a bounded run; `make fuzz` is a longer one."""

from pathlib import Path

import pytest

from tests.fuzz.run import GRAPHQL, OPENAPI, report, run, target


@pytest.mark.parametrize(
    ("location", "phases", "examples"),
    [(OPENAPI, "examples,coverage", 1), (OPENAPI, "fuzzing,stateful", 8), (GRAPHQL, "coverage,fuzzing", 30)],
    ids=["examples and coverage", "fuzzing and stateful", "graphql"],
)
def test_all_checks_pass(database_url: str, tmp_path: Path, location: str, phases: str, examples: int) -> None:
    work = tmp_path / "work"
    work.mkdir()
    with target(database_url, tmp_path) as live:
        options = ("--phases", phases, "--max-examples", str(examples), "--seed", "1")
        outcome = run(live, work, *options, "--generation-database", "none", location=location)
    print(report(outcome))
    assert len(outcome.answers) >= (5 if location == GRAPHQL else 40)  # operations
    problems = outcome.problems()
    assert not problems, "\n".join(problems)
