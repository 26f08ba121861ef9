"""Messages by (sender, client_msg_id), hundreds at once, each by one look into the unique index.

`(a, b) IN ((…), …)` would do on PostgreSQL; SQLite reads the whole table for it. So the pairs come as one parameter
that the database unfolds, which is also one statement whatever their number.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY, ColumnElement, Select, String, and_, bindparam, func, select
from sqlalchemy.sql.selectable import FromClause

from kama.server.store.schema import messages

if TYPE_CHECKING:
    from kama.server.store.database import Database

Pair = tuple[str, str]


def select_by_pairs(database: Database, *columns: ColumnElement[Any]) -> Select[Any]:
    """The rows that are stored under one of the pairs that `parameters_of` gives it."""
    given, send_id, client_msg_id = _on_sqlite() if database.is_sqlite else _on_postgresql()
    found = and_(
        messages.c.send_id == send_id,
        messages.c.client_msg_id == client_msg_id,
        messages.c.client_msg_id.is_not(None),  # the index has no others, and is not used without these words
    )
    return select(*columns).select_from(given.join(messages, found))


def parameters_of(database: Database, pairs: Sequence[Pair]) -> Mapping[str, Any]:
    if database.is_sqlite:
        return {"pairs": json.dumps(pairs)}
    send_ids, client_msg_ids = zip(*pairs, strict=True)
    return {"send_ids": list(send_ids), "client_msg_ids": list(client_msg_ids)}


def _on_sqlite() -> tuple[FromClause, ColumnElement[Any], ColumnElement[Any]]:
    given = func.json_each(bindparam("pairs", type_=String)).table_valued("value", name="given")
    return given, func.json_extract(given.c.value, "$[0]"), func.json_extract(given.c.value, "$[1]")


def _on_postgresql() -> tuple[FromClause, ColumnElement[Any], ColumnElement[Any]]:
    columns = (bindparam(name, type_=ARRAY(String)) for name in ("send_ids", "client_msg_ids"))
    given = func.unnest(*columns).table_valued("send_id", "client_msg_id", name="given").render_derived()
    return given, given.c.send_id, given.c.client_msg_id
