"""Schemathesis finds nothing: a bounded run; `make fuzz` is a longer one."""

from pathlib import Path

import pytest

from tests.fuzz.run import report, run, target


@pytest.mark.parametrize(
    ("phases", "options"),
    [("examples,coverage", ()), ("fuzzing,stateful", ("--max-examples", "8"))],
    ids=["examples and coverage", "fuzzing and stateful"],
)
def test_all_checks_pass(database_url: str, tmp_path: Path, phases: str, options: tuple[str, ...]) -> None:
    work = tmp_path / "work"
    work.mkdir()
    with target(database_url, tmp_path) as live:
        outcome = run(live, work, "--phases", phases, "--seed", "1", "--generation-database", "none", *options)
    print(report(outcome))
    assert outcome.answers
    problems = outcome.problems()
    assert not problems, "\n".join(problems)
