"""Idempotency records get their standard name. An API process of an older version does not find the renamed table.

Revision: 0010
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE kept_answers RENAME TO idempotency_records")
    op.execute("ALTER TABLE idempotency_records RENAME CONSTRAINT kept_answers_pkey TO idempotency_records_pkey")
    op.execute("ALTER INDEX kept_answers_created_at_idx RENAME TO idempotency_records_created_at_idx")


def downgrade() -> None:
    op.execute("ALTER INDEX idempotency_records_created_at_idx RENAME TO kept_answers_created_at_idx")
    op.execute("ALTER TABLE idempotency_records RENAME CONSTRAINT idempotency_records_pkey TO kept_answers_pkey")
    op.execute("ALTER TABLE idempotency_records RENAME TO kept_answers")
