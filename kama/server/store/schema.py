"""The tables, for SQLite and PostgreSQL alike. Message columns have KamaChat's names where it has one.

Times are Unix milliseconds. `status` is a MessageStatus. A conversation's `version` counts the transactions
that changed anything a reader of its history can see: a cached copy of another version is not used.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

# SQLite gives only INTEGER PRIMARY KEY the row's own place; elsewhere 64 bits must be asked for.
Big = BigInteger().with_variant(Integer, "sqlite")

USER_ID = 20
CONVERSATION = 41

messages = Table(
    "message",
    metadata,
    Column("uuid", Big, primary_key=True, autoincrement=False),
    Column("conversation", String(CONVERSATION), nullable=False),
    Column("seq", Big, nullable=False),
    Column("session_id", String(20), nullable=False),
    Column("type", SmallInteger, nullable=False),
    Column("content", Text, nullable=False),
    Column("url", String(255), nullable=False),
    Column("send_id", String(USER_ID), nullable=False),
    Column("send_name", String(20), nullable=False),
    Column("send_avatar", String(255), nullable=False),
    Column("receive_id", String(USER_ID), nullable=False),
    Column("file_type", String(50), nullable=False),
    Column("file_name", String(50), nullable=False),
    Column("file_size", String(20), nullable=False),
    Column("av_data", Text),
    Column("status", SmallInteger, nullable=False),
    Column("client_msg_id", String(64)),
    Column("created_at", Big, nullable=False),
    Column("send_at", Big),
    UniqueConstraint("conversation", "seq", name="uq_message_conversation_seq"),
)
Index(
    "uq_message_send_id_client_msg_id",
    messages.c.send_id,
    messages.c.client_msg_id,
    unique=True,
    sqlite_where=messages.c.client_msg_id.is_not(None),
    postgresql_where=messages.c.client_msg_id.is_not(None),
)

conversations = Table(
    "conversation",
    metadata,
    Column("conversation", String(CONVERSATION), primary_key=True),
    Column("last_seq", Big, nullable=False),
    Column("version", Big, nullable=False),
)

cursors = Table(
    "cursor",
    metadata,
    Column("user_id", String(USER_ID), primary_key=True),
    Column("conversation", String(CONVERSATION), primary_key=True),
    Column("sent_seq", Big, nullable=False),
    Column("delivered_seq", Big, nullable=False),
    Column("read_seq", Big, nullable=False),
)

groups = Table(
    "group_info",
    metadata,
    Column("uuid", String(20), primary_key=True),
    Column("name", String(50), nullable=False),
    Column("owner_id", String(USER_ID), nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("created_at", Big, nullable=False),
)

members = Table(
    "group_member",
    metadata,
    Column("group_uuid", String(20), primary_key=True),
    Column("user_uuid", String(USER_ID), primary_key=True),
    Column("role", SmallInteger, nullable=False),
    Column("joined_at", Big, nullable=False),
    Index("ix_group_member_user_uuid", "user_uuid"),
)

log_positions = Table(
    "log_position",
    metadata,
    Column("log_id", String(32), primary_key=True),
    Column("position", Big, nullable=False),
)
