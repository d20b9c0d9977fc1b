"""What the page tells already: a run that measures a few models keeps the lines of all others."""

import re
from collections.abc import Sequence

CHANCE = "*a random order"
"""How the name of the row begins that comes last in every table of figures."""


def sections(page: str) -> dict[str, str]:
    """The parts of a page that are of a data set under a protocol, by their titles; their texts hold no title."""
    parts = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    return {title: text for title, _, text in (part.partition("\n") for part in parts) if "\nSplit `" in text}


class Earlier:
    """The tables of one data set and protocol on an earlier page; empty where it has none of the same split."""

    def __init__(self, page: str, title: str, split_hash: str) -> None:
        """title: the words behind `## `."""
        section = sections(page).get(title, "")
        if f"Split `{split_hash}`" not in section:
            section = ""
        self._tables: dict[str, dict[str, str]] = {}
        heading = ""
        for line in section.splitlines():
            if line.startswith("### "):
                heading = _words(line.removeprefix("### "))
            elif line.startswith("| ") and not line.startswith("| ---"):
                self._tables.setdefault(heading, {})[_first_cell(line)] = line

    def under(self, heading: str, lines: Sequence[str]) -> list[str]:
        """The lines of a table with those that stood under the same heading and whose model they do not name.

        The best comes first, by the first figure. lines: head, rule, rows.
        """
        head, rule, *rows = self.rows(heading, lines)
        return [head, rule, *sorted(rows, key=_rank)]

    def rows(self, heading: str, lines: Sequence[str]) -> list[str]:
        """The same in no order of figures: what is new comes last."""
        head, rule, *rows = lines
        named = {_first_cell(line) for line in lines}
        kept = [line for name, line in self._tables.get(_words(heading), {}).items() if name not in named]
        return [head, rule, *kept, *rows]

    @property
    def models(self) -> set[str]:
        """The names that stand in any table, as they are printed."""
        return {name for table in self._tables.values() for name in table}


def _first_cell(line: str) -> str:
    return line.split("|")[1].strip()


def _words(heading: str) -> str:
    """A heading without the number behind it."""
    return heading.partition(" (")[0]


def _rank(line: str) -> tuple[bool, float]:
    figure = line.split("|")[2].strip().split(" ")[0]
    return line.startswith(f"| {CHANCE}"), -float(figure)
