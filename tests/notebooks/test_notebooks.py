"""Every notebook runs from its first cell to its last, and shows what it says it shows."""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def run(path: Path) -> dict[str, Any]:
    """The names that the code cells leave, executed in order in one namespace, as a kernel does."""
    mpl.use("Agg")
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(json.loads(path.read_text())["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{path.name}[{number}]", "exec"), names)
    return names


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_without_outputs(path: Path) -> None:
    cells = json.loads(path.read_text())["cells"]
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]


def test_first_look_compares_families_and_explains_an_answer() -> None:
    names = run(FOLDER / "first_look.ipynb")
    figures = names["table"]["ndcg@10"]
    assert figures["collaborative"] > figures["item-knn"] > 0.1
    answer = names["answer"]
    assert len(answer) == 5
    assert set(answer["because of"]) <= {
        "Star Wars (1977)",
        "Empire Strikes Back, The (1980)",
        "Return of the Jedi (1983)",
    }
