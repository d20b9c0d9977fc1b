"""Every notebook runs from its first cell to its last, and shows what it says it shows."""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

pytestmark = pytest.mark.fit

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


def test_collaborative_finds_kin_among_the_neighbours() -> None:
    names = run(FOLDER / "collaborative.ipynb")
    near = names["near"]
    assert "Return of the Jedi (1983)" in set(near["Star Wars (1977)", "collaborative"])
    assert "Wrong Trousers, The (1993)" in set(near[names["films"][3], "collaborative"])
    reached = names["by_half_lives"]
    assert max(reached.values()) > reached["()"] > 0.1
    explained = names["answer"]
    assert explained.shape == (6, 5)
    assert (explained.max(axis=1) > 0).all(), "every film of the list has a film of the history that raises its score"


def test_content_based_places_films_that_nobody_saw() -> None:
    names = run(FOLDER / "content_based.ipynb")
    places = names["places"]
    horror, animation = (metadata["title"] for metadata in names["coming"])
    assert places["horror"][horror] < places["horror"][animation]
    assert places["family"][animation] < places["family"][horror]
    assert names["cold_targets"].n_targets > 100


def test_deep_learning_looks_at_what_is_new_and_reads_order() -> None:
    names = run(FOLDER / "deep_learning.ipynb")
    assert names["shares"][:10].sum() > names["shares"][30:].sum()
    assert names["record"]["losses"][-1] < names["record"]["losses"][0]
    first, second = (names["orders"][order].tolist() for order in names["both"])
    assert first != second
    named = [because for because in names["answer"]["because of"] if because]
    assert named and all(any(film in because for film in names["order"]) for because in named)


def test_hybrid_beats_what_it_blends_and_higher_scores_are_worth_more() -> None:
    names = run(FOLDER / "hybrid.ipynb")
    tested = names["tested"]
    assert tested["hybrid"] > max(tested["collaborative"], tested["content-based"])
    assert names["main_family_shares"].sum() == pytest.approx(1)
    rate = names["rate"]
    known = rate[~(rate != rate)]
    assert known[-1] > 3 * known[0]
    assert names["covered"] >= 0.8
