"""First tables: messages, conversations, cursors, groups and their members."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "message",
        sa.Column("uuid", _BIG, primary_key=True, autoincrement=False),
        sa.Column("conversation", sa.String(41), nullable=False),
        sa.Column("seq", _BIG, nullable=False),
        sa.Column("session_id", sa.String(20), nullable=False),
        sa.Column("type", sa.SmallInteger, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("url", sa.String(255), nullable=False),
        sa.Column("send_id", sa.String(20), nullable=False),
        sa.Column("send_name", sa.String(20), nullable=False),
        sa.Column("send_avatar", sa.String(255), nullable=False),
        sa.Column("receive_id", sa.String(20), nullable=False),
        sa.Column("file_type", sa.String(50), nullable=False),
        sa.Column("file_name", sa.String(50), nullable=False),
        sa.Column("file_size", sa.String(20), nullable=False),
        sa.Column("av_data", sa.Text),
        sa.Column("status", sa.SmallInteger, nullable=False),
        sa.Column("client_msg_id", sa.String(64)),
        sa.Column("created_at", _BIG, nullable=False),
        sa.Column("send_at", _BIG),
        sa.UniqueConstraint("conversation", "seq", name="uq_message_conversation_seq"),
    )
    op.create_index(
        "uq_message_send_id_client_msg_id",
        "message",
        ["send_id", "client_msg_id"],
        unique=True,
        sqlite_where=sa.text("client_msg_id IS NOT NULL"),
        postgresql_where=sa.text("client_msg_id IS NOT NULL"),
    )
    op.create_table(
        "conversation",
        sa.Column("conversation", sa.String(41), primary_key=True),
        sa.Column("last_seq", _BIG, nullable=False),
        sa.Column("version", _BIG, nullable=False),
    )
    op.create_table(
        "cursor",
        sa.Column("user_id", sa.String(20), primary_key=True),
        sa.Column("conversation", sa.String(41), primary_key=True),
        sa.Column("sent_seq", _BIG, nullable=False),
        sa.Column("delivered_seq", _BIG, nullable=False),
        sa.Column("read_seq", _BIG, nullable=False),
    )
    op.create_table(
        "group_info",
        sa.Column("uuid", sa.String(20), primary_key=True),
        sa.Column("name", sa.String(50), nullable=False),
        sa.Column("owner_id", sa.String(20), nullable=False),
        sa.Column("status", sa.SmallInteger, nullable=False),
        sa.Column("created_at", _BIG, nullable=False),
    )
    op.create_table(
        "group_member",
        sa.Column("group_uuid", sa.String(20), primary_key=True),
        sa.Column("user_uuid", sa.String(20), primary_key=True),
        sa.Column("role", sa.SmallInteger, nullable=False),
        sa.Column("joined_at", _BIG, nullable=False),
    )
    op.create_index("ix_group_member_user_uuid", "group_member", ["user_uuid"])


def downgrade() -> None:
    for name in ("group_member", "group_info", "cursor", "conversation", "message"):
        op.drop_table(name)
