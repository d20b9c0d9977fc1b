"""Asset metadata that people read in Dagster's UI: tables, and plots as images inside Markdown."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import numpy.typing as npt
import pyarrow as pa

from feature_store.column_descriptions import DESCRIPTIONS

COLUMNS = "dagster/column_schema"
"""The metadata entry that Dagster shows as an asset's columns."""
SUMMARY = "summary"
"""The metadata entry with an asset's result in one line, which the command line prints."""

Cell = str | int | float | bool | None


def table(rows: Sequence[Mapping[str, Cell]]) -> dg.MetadataValue:
    """Rows as a table. A cell is empty where the row lacks the column or holds None."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    filled = [{name: row.get(name) for name in columns} for row in rows]
    return dg.MetadataValue.table(
        [dg.TableRecord({name: "" if cell is None else cell for name, cell in row.items()}) for row in filled],
        schema=dg.TableSchema([dg.TableColumn(name) for name in columns]),
    )


def table_schema(schema: pa.Schema) -> dg.TableSchema:
    """The columns of an Arrow schema, with their types, whether they may be null, and what they hold."""
    return dg.TableSchema(
        [
            dg.TableColumn(
                field.name,
                str(field.type),
                description=DESCRIPTIONS[field.name],
                constraints=dg.TableColumnConstraints(nullable=field.nullable),
            )
            for field in schema
        ]
    )


def line_plot(
    x: Sequence[Any] | npt.NDArray[Any], y: npt.NDArray[Any], *, xlabel: str, ylabel: str
) -> dg.MetadataValue:
    """A line plot, from zero."""
    figure, axes = _axes(xlabel, ylabel)
    axes.plot(x, y, linewidth=1.2)
    axes.set_ylim(bottom=0)
    if len(x) and hasattr(x[0], "year"):
        figure.autofmt_xdate()
    return image(figure)


def limit_plot(
    x: Sequence[Any],
    y: npt.NDArray[Any],
    limits: npt.NDArray[Any],
    beyond: npt.NDArray[Any],
    *,
    xlabel: str,
    ylabel: str,
) -> dg.MetadataValue:
    """A line plot beside its limit, both with gaps where they are NaN; the points that are beyond it are marked."""
    figure, axes = _axes(xlabel, ylabel)
    axes.plot(x, y, marker=".", linewidth=1.2, label="value")
    axes.plot(x, limits, linestyle="--", linewidth=1.0, color="grey", label="limit")
    if beyond.any():
        marked = [day for day, is_beyond in zip(x, beyond, strict=True) if is_beyond]
        axes.plot(marked, y[beyond], marker="o", linestyle="none", color="crimson", label="drift")
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper left", fontsize="small", frameon=False)
    if len(x) and hasattr(x[0], "year"):
        figure.autofmt_xdate()
    return image(figure)


def rank_plot(values: npt.NDArray[Any], *, xlabel: str, ylabel: str) -> dg.MetadataValue:
    """Values against their rank, largest first, both on logarithmic axes: a power law is a straight line there."""
    figure, axes = _axes(xlabel, ylabel)
    positive = values[values > 0]
    axes.loglog(range(1, len(positive) + 1), positive, linewidth=1.2)
    return image(figure)


def interval_plot(
    names: Sequence[str], means: Sequence[float], lows: Sequence[float], highs: Sequence[float], *, xlabel: str
) -> dg.MetadataValue:
    """A horizontal bar per name, with its interval as an error bar."""
    figure, axes = _axes(xlabel, "")
    errors = [
        [mean - low for mean, low in zip(means, lows, strict=True)],
        [high - mean for mean, high in zip(means, highs, strict=True)],
    ]
    axes.barh(names, means, xerr=errors, capsize=3, height=0.6)
    axes.invert_yaxis()
    return image(figure)


def _axes(xlabel: str, ylabel: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # takes half a second, which loading the definitions need not spend

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(alpha=0.3)
    return figure, axes


def image(figure: Any) -> dg.MetadataValue:
    """A figure of Matplotlib as a picture inside Markdown."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()})")
