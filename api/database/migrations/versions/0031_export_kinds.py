"""Exports of what was really seen of answers.

Revision: 0031
"""

from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

_DROP = "ALTER TABLE export_jobs DROP CONSTRAINT export_jobs_kind_check"


def upgrade() -> None:
    op.execute(_DROP)
    op.execute(
        "ALTER TABLE export_jobs ADD CONSTRAINT export_jobs_kind_check "
        "CHECK (kind IN ('interactions', 'impressions', 'recommendations', 'seen_impressions'))"
    )


def downgrade() -> None:
    op.execute(_DROP)
    op.execute("DELETE FROM export_jobs WHERE kind = 'seen_impressions'")
    op.execute(
        "ALTER TABLE export_jobs ADD CONSTRAINT export_jobs_kind_check "
        "CHECK (kind IN ('interactions', 'impressions', 'recommendations'))"
    )
