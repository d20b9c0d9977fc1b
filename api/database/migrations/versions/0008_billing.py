"""Usage by cycle, and what is known of subscriptions, charges and events at Stripe.

Revision: 0008
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

METERING = (
    """
    CREATE TABLE usage_cycles (
        tenant_id TEXT NOT NULL,
        cycle_start TIMESTAMP WITH TIME ZONE NOT NULL,
        cycle_end TIMESTAMP WITH TIME ZONE NOT NULL,
        units BIGINT DEFAULT 0 NOT NULL,
        request_limit BIGINT,
        plan_id TEXT NOT NULL,
        last_request_at TIMESTAMP WITH TIME ZONE,
        CONSTRAINT usage_cycles_pkey PRIMARY KEY (tenant_id, cycle_start),
        CONSTRAINT usage_cycles_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (id),
        CONSTRAINT usage_cycles_units_check CHECK (units >= 0),
        CONSTRAINT usage_cycles_cycle_check CHECK (cycle_start < cycle_end)
    )
    """,
    "CREATE INDEX usage_cycles_end_idx ON usage_cycles (cycle_end)",
    """
    CREATE TABLE usage_flushes (
        process UUID NOT NULL,
        sequence BIGINT NOT NULL,
        flushed_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        CONSTRAINT usage_flushes_pkey PRIMARY KEY (process)
    )
    """,
    "CREATE INDEX usage_flushes_flushed_at_idx ON usage_flushes (flushed_at)",
    # Jobs from before metering cost nothing: their `users_scored` is 0.
    """
    ALTER TABLE generation_jobs
        ADD COLUMN users_scored BIGINT DEFAULT 0 NOT NULL, ADD COLUMN users_metered BIGINT DEFAULT 0 NOT NULL
    """,
    """
    CREATE INDEX generation_jobs_unmetered_idx ON generation_jobs (tenant_id)
        WHERE users_metered < LEAST(users_scored, users_done)
    """,
    """
    CREATE INDEX users_portal_idx ON users (tenant_id) WHERE password_hash IS NOT NULL OR role_issued_at IS NOT NULL
    """,
)

BILLING = (
    """
    CREATE TABLE subscriptions (
        tenant_id TEXT NOT NULL,
        customer_id TEXT NOT NULL,
        subscription_id TEXT,
        plan_id TEXT,
        interval TEXT,
        status TEXT,
        current_period_start TIMESTAMP WITH TIME ZONE,
        current_period_end TIMESTAMP WITH TIME ZONE,
        billing_cycle_anchor TIMESTAMP WITH TIME ZONE,
        cancel_at_period_end BOOLEAN DEFAULT false NOT NULL,
        past_due_since TIMESTAMP WITH TIME ZONE,
        as_of TIMESTAMP WITH TIME ZONE,
        CONSTRAINT subscriptions_pkey PRIMARY KEY (tenant_id),
        CONSTRAINT subscriptions_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (id),
        CONSTRAINT subscriptions_interval_check CHECK (interval IN ('monthly', 'annual'))
    )
    """,
    "CREATE UNIQUE INDEX subscriptions_customer_id_key ON subscriptions (customer_id)",
    "CREATE UNIQUE INDEX subscriptions_subscription_id_key ON subscriptions (subscription_id)",
    """
    CREATE TABLE billing_settings (
        tenant_id TEXT NOT NULL,
        overage_cap_cents BIGINT NOT NULL,
        changed_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        CONSTRAINT billing_settings_pkey PRIMARY KEY (tenant_id),
        CONSTRAINT billing_settings_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (id),
        CONSTRAINT billing_settings_overage_cap_cents_check CHECK (overage_cap_cents >= 0)
    )
    """,
    """
    CREATE TABLE stripe_events (
        id TEXT NOT NULL,
        tenant_id TEXT,
        type TEXT NOT NULL,
        created TIMESTAMP WITH TIME ZONE NOT NULL,
        payload JSONB NOT NULL,
        received_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        handled_at TIMESTAMP WITH TIME ZONE,
        attempts INTEGER DEFAULT 0 NOT NULL,
        error TEXT,
        CONSTRAINT stripe_events_pkey PRIMARY KEY (id)
    )
    """,
    "CREATE INDEX stripe_events_unhandled_idx ON stripe_events (received_at) WHERE handled_at IS NULL",
    "CREATE INDEX stripe_events_tenant_id_idx ON stripe_events (tenant_id)",
    """
    CREATE TABLE billing_audit (
        tenant_id TEXT NOT NULL,
        id UUID DEFAULT gen_random_uuid() NOT NULL,
        at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        actor TEXT NOT NULL,
        action TEXT NOT NULL,
        before JSONB,
        after JSONB,
        CONSTRAINT billing_audit_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT billing_audit_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (id)
    )
    """,
    "CREATE INDEX billing_audit_at_idx ON billing_audit (tenant_id, at DESC)",
    """
    CREATE TABLE overage_charges (
        tenant_id TEXT NOT NULL,
        cycle_start TIMESTAMP WITH TIME ZONE NOT NULL,
        units BIGINT NOT NULL,
        amount_cents BIGINT NOT NULL,
        invoice_item_id TEXT,
        reported_at TIMESTAMP WITH TIME ZONE,
        CONSTRAINT overage_charges_pkey PRIMARY KEY (tenant_id, cycle_start),
        CONSTRAINT overage_charges_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (id),
        CONSTRAINT overage_charges_amount_cents_check CHECK (amount_cents >= 0)
    )
    """,
)


def upgrade() -> None:
    for statement in METERING + BILLING:
        op.execute(statement)


def downgrade() -> None:
    op.execute(
        "DROP TABLE overage_charges, billing_audit, stripe_events, billing_settings, subscriptions, usage_flushes, "
        "usage_cycles"
    )
    op.execute("DROP INDEX users_portal_idx, generation_jobs_unmetered_idx")
    op.execute("ALTER TABLE generation_jobs DROP COLUMN users_scored, DROP COLUMN users_metered")
