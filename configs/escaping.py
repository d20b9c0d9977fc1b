"""Text that tenants supply, for places that would read marks or formulas in it: Markdown, plots and spreadsheets.

JSON, Parquet and tables of Dagster show text as it is, so nothing is escaped there.
"""

import re

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""First characters by which a spreadsheet takes a cell for a formula (OWASP, CSV injection)."""


def markdown_code(text: object, limit: int = 120) -> str:
    """The text as a Markdown code span, in which no link, image or HTML is read.

    A span ends at a backtick and a table's cell at a bar, so both are replaced. Longer texts are cut at the limit.
    """
    line = " ".join("".join(char if char.isprintable() else " " for char in str(text)).split())
    shown = line if len(line) <= limit else line[: limit - 1] + "…"
    shown = shown.replace("`", "'").replace("|", "¦")
    return f"`{shown or ' '}`"


def markdown_block(text: str, language: str = "") -> str:
    """The text as a fenced block of code, under a fence that is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def plot_text(text: object, limit: int = 40) -> str:
    """The text for a label of Matplotlib, which would read what is between dollar signs as a formula."""
    line = " ".join(str(text).split())
    return (line if len(line) <= limit else line[: limit - 1] + "…").replace("$", r"\$")


def spreadsheet_cell(value: object) -> object:
    """The value for a cell of CSV. Text that a spreadsheet would run as a formula gets a leading apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value
