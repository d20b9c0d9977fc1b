"""What an answer was made of, how long it took and who followed it, and the share of users that a tenant holds out.

Revision: 0025
"""

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "ALTER TABLE impressions ADD COLUMN scenario TEXT, ADD COLUMN scenario_version INTEGER, "
        "ADD COLUMN holdout BOOLEAN DEFAULT false NOT NULL, ADD COLUMN milliseconds REAL"
    )
    op.execute(
        "ALTER TABLE tenants ADD COLUMN holdout_share DOUBLE PRECISION DEFAULT 0 NOT NULL "
        "CONSTRAINT tenants_holdout_share_check CHECK (holdout_share BETWEEN 0 AND 1)"
    )
    op.execute("CREATE INDEX attributions_answer_idx ON attributions (tenant_id, recommendation_id)")


def downgrade() -> None:
    op.execute("DROP INDEX attributions_answer_idx")
    op.execute("ALTER TABLE tenants DROP COLUMN holdout_share")
    op.execute(
        "ALTER TABLE impressions DROP COLUMN scenario, DROP COLUMN scenario_version, DROP COLUMN holdout, "
        "DROP COLUMN milliseconds"
    )
