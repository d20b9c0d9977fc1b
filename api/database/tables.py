"""Every table of the product, found by convention: a domain's `tables.py` is all it takes to join."""

from importlib import import_module
from pathlib import Path

from sqlalchemy import MetaData

from api.database.base import Table

API = Path(__file__).resolve().parent.parent


def all_tables() -> MetaData:
    """Import `api/<domain>/tables.py` of every domain and return the metadata they registered in."""
    for module in sorted(API.glob("*/tables.py")):
        if module.parent.name != "database":
            import_module(f"api.{module.parent.name}.tables")
    return Table.metadata
