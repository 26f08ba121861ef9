"""Messages by (sender, client_msg_id), hundreds at once, each by one look into the unique index.

`(a, b) IN ((…), …)` would do on PostgreSQL; SQLite reads the whole table for it. So the pairs come as one parameter
that the database unfolds, which is also one statement whatever their number.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY, ColumnElement, Select, String, and_, bindparam, func, select
from sqlalchemy.sql.selectable import FromClause

from kama.server.store.schema import messages

if TYPE_CHECKING:
    from kama.server.store.database import Database

Pair = tuple[str, str]


def select_by_pairs(database: Database, pairs: Sequence[Pair], *columns: ColumnElement[Any]) -> Select[Any]:
    """The rows that are stored under one of these pairs."""
    given, send_id, client_msg_id = _on_sqlite(pairs) if database.is_sqlite else _on_postgresql(pairs)
    found = and_(
        messages.c.send_id == send_id,
        messages.c.client_msg_id == client_msg_id,
        messages.c.client_msg_id.is_not(None),  # the index has no others, and is not used without these words
    )
    return select(*columns).select_from(given.join(messages, found))


def _on_sqlite(pairs: Sequence[Pair]) -> tuple[FromClause, ColumnElement[Any], ColumnElement[Any]]:
    given = func.json_each(bindparam("pairs", json.dumps(pairs))).table_valued("value", name="given")
    return given, func.json_extract(given.c.value, "$[0]"), func.json_extract(given.c.value, "$[1]")


def _on_postgresql(pairs: Sequence[Pair]) -> tuple[FromClause, ColumnElement[Any], ColumnElement[Any]]:
    send_ids, client_msg_ids = (bindparam(None, list(values), ARRAY(String)) for values in zip(*pairs, strict=True))
    unfolded = func.unnest(send_ids, client_msg_ids).table_valued("send_id", "client_msg_id", name="given")
    given = unfolded.render_derived()
    return given, given.c.send_id, given.c.client_msg_id
