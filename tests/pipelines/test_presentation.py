"""Metadata for Dagster: plots are images, tables have columns."""

import base64
import io
from datetime import date

import dagster as dg
import numpy as np
import pytest
from matplotlib.image import imread

from pipelines.presentation import interval_plot, line_plot, rank_plot, table

PLOTS = {
    "line": lambda: line_plot([date(2024, 1, 1), date(2024, 1, 2)], np.array([1, 5]), xlabel="day", ylabel="n"),
    "line of nothing": lambda: line_plot([], np.array([]), xlabel="day", ylabel="n"),
    "rank": lambda: rank_plot(np.array([9, 3, 1, 0]), xlabel="rank", ylabel="n"),
    "interval": lambda: interval_plot(["a", "b"], [0.1, 0.2], [0.05, 0.15], [0.15, 0.3], xlabel="ndcg"),
}


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_is_a_picture_in_markdown(name: str) -> None:
    markdown = PLOTS[name]()
    assert isinstance(markdown, dg.MarkdownMetadataValue)
    head, data = str(markdown.md_str).removesuffix(")").split(";base64,")
    assert head == "![plot](data:image/png"
    picture = imread(io.BytesIO(base64.b64decode(data)), format="png")  # [height, width, 4]
    assert picture[..., :3].std() > 0


def test_a_table_keeps_names_and_order_and_fills_gaps() -> None:
    shown = table([{"b": 1, "a": None}, {"b": 2, "a": "x"}, {"b": 3}])
    assert isinstance(shown, dg.TableMetadataValue)
    assert [column.name for column in shown.schema.columns] == ["b", "a"]
    assert [dict(record.data) for record in shown.records] == [
        {"b": 1, "a": ""},
        {"b": 2, "a": "x"},
        {"b": 3, "a": ""},
    ]
    assert isinstance(table([]), dg.TableMetadataValue)
