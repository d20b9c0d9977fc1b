"""Text of tenants stays text in Markdown, in plots and in spreadsheets."""

import re
from pathlib import Path

import pytest

from configs.escaping import markdown_block, markdown_code, plot_text, spreadsheet_cell

ROOT = Path(__file__).resolve().parents[2]
WRITES_CSV = re.compile(r"to_csv|csv\.writer|DictWriter|write_csv|FORMAT csv", re.IGNORECASE)


@pytest.mark.parametrize("text", ["`](javascript:x)", "a|b", "<script>\n# head", "\x00\x1b[31m", "``` ```", ""])
def test_markdown_reads_no_mark_in_foreign_text(text: str) -> None:
    shown = markdown_code(text)
    inside = shown[1:-1]
    assert shown.startswith("`") and shown.endswith("`") and inside
    assert not set("`|\n\r\x00\x1b") & set(inside)


def test_long_text_is_cut_and_ordinary_text_stays() -> None:
    assert markdown_code("Toy Story (1995)") == "`Toy Story (1995)`"
    assert len(markdown_code("x" * 1_000)) == 122
    assert plot_text("$1 or $2") == r"\$1 or \$2" and len(plot_text("x" * 99)) == 40


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1+cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_a_spreadsheet_runs_no_formula_of_a_tenant(text: str) -> None:
    assert spreadsheet_cell(text) == f"'{text}"


def test_numbers_and_ordinary_text_are_exact_in_spreadsheets() -> None:
    assert [spreadsheet_cell(value) for value in (-1.5, "a-b", "", None)] == [-1.5, "a-b", "", None]


def test_no_package_writes_csv_for_people() -> None:
    """Imports hand exact rows to PostgreSQL's COPY. Whoever writes CSV for people uses `spreadsheet_cell`."""
    packages = ("api", "serving", "pipelines", "training", "feature_store", "configs")
    files = (file for package in packages for file in (ROOT / package).rglob("*.py"))
    writers = {str(file.relative_to(ROOT)) for file in files if WRITES_CSV.search(file.read_text())}
    assert writers == {"api/imports/store.py"}


def test_a_block_of_code_does_not_end_within_its_text() -> None:
    assert markdown_block("a: 1\n", "yaml") == "```yaml\na: 1\n```"
    assert markdown_block("```\n# head").startswith("````\n") and markdown_block("```\n# head").endswith("\n````")
