# SPDX-License-Identifier: Apache-2.0
"""Keep clones; keep of each replica how its verification ended and when it was mounted read-write."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the table and the columns."""
    op.create_table(
        "clones",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("replica", sa.Text, nullable=False),
        sa.Column("specification", sa.Text, nullable=False),
        sa.Column("created", sa.Text, nullable=False),
        sa.Column("expires", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
    )
    op.add_column("replicas", sa.Column("verification", sa.Text, nullable=False, server_default="null"))
    op.add_column("replicas", sa.Column("used", sa.Text))
