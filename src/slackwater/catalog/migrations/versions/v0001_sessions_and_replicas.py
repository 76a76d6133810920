# SPDX-License-Identifier: Apache-2.0
"""Make the first schema: days, sessions, replicas."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "days",
        sa.Column("day", sa.Text, primary_key=True),
        sa.Column("last", sa.Integer, nullable=False),
    )
    op.create_table(
        "sessions",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("specification", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("started", sa.Text, nullable=False),
        sa.Column("ended", sa.Text),
        sa.Column("process", sa.Text, nullable=False),
        sa.Column("phases", sa.Text, nullable=False),
        sa.Column("messages", sa.Text, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
    )
    op.create_table(
        "replicas",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("specification", sa.Text, nullable=False),
        sa.Column("created", sa.Text, nullable=False),
        sa.Column("consistency", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("pinned", sa.Boolean, nullable=False),
        sa.Column("verified", sa.Text),
        sa.Column("read_only", sa.Boolean, nullable=False),
        sa.Column("presented", sa.Boolean, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
    )
