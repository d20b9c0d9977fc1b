"""When the newest refresh tokens of a session were used: within seconds, one may be used again.

Revision: 0014
"""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE sessions ADD COLUMN rotations TIMESTAMPTZ[] DEFAULT '{}' NOT NULL")


def downgrade() -> None:
    op.execute("ALTER TABLE sessions DROP COLUMN rotations")
