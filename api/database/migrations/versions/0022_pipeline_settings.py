"""The settings of each tenant's pipeline.

Revision: 0022
"""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE pipeline_settings (
            tenant_id TEXT NOT NULL,
            settings JSONB NOT NULL,
            webhook_secret TEXT,
            updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
            CONSTRAINT pipeline_settings_pkey PRIMARY KEY (tenant_id),
            CONSTRAINT pipeline_settings_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (id)
        )
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE pipeline_settings")
