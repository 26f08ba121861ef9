"""INSERT … ON CONFLICT, which SQLite and PostgreSQL both speak and SQLAlchemy spells once per dialect."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite

if TYPE_CHECKING:
    from kama.server.store.database import Database


def upsert(database: Database, table: Table) -> sqlite.Insert:
    """Typed as SQLite's: both dialects' statements have the same methods."""
    if database.is_sqlite:
        return sqlite.insert(table)
    return cast(sqlite.Insert, postgresql.insert(table))
