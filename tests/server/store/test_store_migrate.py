"""The migrations lead to the tables of schema.py, from any earlier state, and back."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from server_builders import build_record
from sqlalchemy import Connection, create_engine, inspect

from kama.server.store.database import Database
from kama.server.store.messages import MessageStore
from kama.server.store.migrate import config_for, upgrade
from kama.server.store.schema import messages, metadata


def migrated(tmp_path: Path) -> Connection:
    connection = create_engine(f"sqlite:///{tmp_path}/kama.db").connect()
    upgrade(connection)
    return connection


def let_go(connection: Connection) -> None:
    connection.close()
    connection.engine.dispose()


def test_a_migrated_database_has_the_tables_of_the_schema(tmp_path: Path) -> None:
    connection = migrated(tmp_path)
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    assert compare_metadata(context, metadata) == []
    let_go(connection)


def test_the_comparison_would_see_a_difference(tmp_path: Path) -> None:
    connection = migrated(tmp_path)
    connection.exec_driver_sql("DROP INDEX uq_message_send_id_client_msg_id")
    context = MigrationContext.configure(connection)
    assert [difference[0] for difference in compare_metadata(context, metadata)] == ["add_index"]
    let_go(connection)


def test_the_unique_index_leaves_out_messages_without_a_client_msg_id(tmp_path: Path) -> None:
    connection = migrated(tmp_path)
    indexes = {index["name"]: index for index in inspect(connection).get_indexes(messages.name)}
    where = indexes["uq_message_send_id_client_msg_id"]["dialect_options"]["sqlite_where"]
    assert str(where) == "client_msg_id IS NOT NULL"
    let_go(connection)


def test_there_is_one_line_of_revisions(tmp_path: Path) -> None:
    connection = migrated(tmp_path)
    scripts = ScriptDirectory.from_config(config_for(connection))
    assert len(scripts.get_heads()) == 1
    assert MigrationContext.configure(connection).get_current_revision() == scripts.get_current_head()
    let_go(connection)


def test_upgrading_again_changes_nothing(tmp_path: Path) -> None:
    connection = migrated(tmp_path)
    before = connection.exec_driver_sql("SELECT sql FROM sqlite_schema ORDER BY name").all()
    upgrade(connection)
    assert connection.exec_driver_sql("SELECT sql FROM sqlite_schema ORDER BY name").all() == before
    let_go(connection)


def test_it_can_be_taken_back(tmp_path: Path) -> None:
    connection = migrated(tmp_path)
    command.downgrade(config_for(connection), "base")
    assert inspect(connection).get_table_names() == ["alembic_version"]
    upgrade(connection)
    assert set(inspect(connection).get_table_names()) == {*metadata.tables, "alembic_version"}
    let_go(connection)


async def test_opening_keeps_what_is_there(database_url: str) -> None:
    for expected in (1, 2):
        database = Database(database_url)
        await database.open()
        batch = await MessageStore(database).insert_batch([build_record()])
        assert batch.outcomes[0].seq == expected
        await database.close()
