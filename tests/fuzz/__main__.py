"""A long run: `python -m tests.fuzz [examples per operation]`. Ends with 1 where it found something."""

import sys
import tempfile
from pathlib import Path

from api.database.migrate import upgrade
from tests.fixtures.postgres import running_postgres
from tests.fuzz.run import GRAPHQL, OPENAPI, report, run, target

EXAMPLES = 200


def main() -> int:
    """Everything that schemathesis can do, on the REST API and on GraphQL."""
    examples = sys.argv[1] if len(sys.argv) > 1 else str(EXAMPLES)
    problems: list[str] = []
    for location in (OPENAPI, GRAPHQL):
        with running_postgres() as url, tempfile.TemporaryDirectory() as state:
            upgrade(url)
            work = Path(state) / "work"
            work.mkdir()
            with target(url, Path(state)) as live:
                outcome = run(live, work, "--max-examples", examples, location=location)
            print(report(outcome))
            problems += outcome.problems()
    print("\n".join(problems) or "nothing found")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
