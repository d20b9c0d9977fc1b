"""Finds all tables: those that the `tables.py` of each domain declares."""

from importlib import import_module
from pathlib import Path

from sqlalchemy import MetaData

from api.database.base import Table

API = Path(__file__).resolve().parent.parent


def all_tables() -> MetaData:
    """Import `api/<domain>/tables.py` of every domain, and return the metadata that holds all tables."""
    for module in sorted(API.glob("*/tables.py")):
        if module.parent.name != "database":
            import_module(f"api.{module.parent.name}.tables")
    return Table.metadata
