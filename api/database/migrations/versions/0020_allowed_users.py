"""How many users a generation job may score by the budget of its tenant; null, no bound, for the jobs that wait now.

Revision: 0020
"""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE generation_jobs ADD COLUMN users_allowed BIGINT")


def downgrade() -> None:
    op.execute("ALTER TABLE generation_jobs DROP COLUMN users_allowed")
