"""Generation jobs of families that plug-ins add.

Revision: 0024
"""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

_DROP = "ALTER TABLE generation_jobs DROP CONSTRAINT generation_jobs_algorithm_check"


def upgrade() -> None:
    op.execute(_DROP)
    op.execute(
        "ALTER TABLE generation_jobs ADD CONSTRAINT generation_jobs_algorithm_check "
        "CHECK (algorithm ~ '^[a-z][a-z0-9-]{0,31}$')"
    )


def downgrade() -> None:
    op.execute(_DROP)
    # Jobs of plug-ins stay, so the rows that are there are not held to the names of before.
    op.execute(
        "ALTER TABLE generation_jobs ADD CONSTRAINT generation_jobs_algorithm_check "
        "CHECK (algorithm IN ('collaborative', 'content-based', 'hybrid', 'deep-learning')) NOT VALID"
    )
