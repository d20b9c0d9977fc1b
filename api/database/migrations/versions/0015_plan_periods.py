"""Plan periods: which plans a tenant held since when, from which a month's limit and price follow.

The subscription of a tenant keeps the anchor that its months have now, whatever Stripe does to its own later. Its plan
periods since it came into force are read from the audit. Months that are over and owe nothing, or are charged already,
are settled.

Revision: 0015
"""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

TABLES = (
    """
    CREATE TABLE plan_periods (
        tenant_id TEXT NOT NULL,
        started_at TIMESTAMP WITH TIME ZONE NOT NULL,
        plan_id TEXT NOT NULL,
        anchor TIMESTAMP WITH TIME ZONE,
        CONSTRAINT plan_periods_pkey PRIMARY KEY (tenant_id, started_at),
        CONSTRAINT plan_periods_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (id)
    )
    """,
    "ALTER TABLE subscriptions ADD COLUMN anchor TIMESTAMP WITH TIME ZONE",
    """
    ALTER TABLE usage_cycles
        ADD COLUMN anchor TIMESTAMP WITH TIME ZONE,
        ADD COLUMN least_cap_cents BIGINT DEFAULT 0 NOT NULL,
        ADD COLUMN settled_at TIMESTAMP WITH TIME ZONE,
        ADD CONSTRAINT usage_cycles_least_cap_cents_check CHECK (least_cap_cents >= 0)
    """,
    "CREATE INDEX usage_cycles_unsettled_idx ON usage_cycles (cycle_end) WHERE settled_at IS NULL",
)

SERVING = "('active', 'trialing', 'past_due')"
GRACE = "interval '7 days'"

FILL = (
    "UPDATE subscriptions SET anchor = billing_cycle_anchor",
    # Since the last time that the tenant was on the plan `free`, each change of plan is one of this subscription.
    f"""
    INSERT INTO plan_periods (tenant_id, started_at, plan_id, anchor)
    SELECT own.tenant_id, change.at, change.after ->> 'planId', own.anchor
    FROM subscriptions AS own
    JOIN billing_audit AS change ON change.tenant_id = own.tenant_id AND change.action = 'plan'
    WHERE own.status IN {SERVING} AND own.plan_id IS NOT NULL AND change.after ->> 'planId' <> 'free'
        AND NOT EXISTS (
            SELECT FROM billing_audit AS later
            WHERE later.tenant_id = own.tenant_id AND later.action = 'plan' AND later.at > change.at
                AND later.after ->> 'planId' = 'free'
        )
    ON CONFLICT DO NOTHING
    """,  # noqa: S608 - constants of this module
    # The audit's first entry comes a moment after the subscription began; without an entry the plan of now counts.
    f"""
    INSERT INTO plan_periods (tenant_id, started_at, plan_id, anchor)
    SELECT own.tenant_id, own.anchor, coalesce((
        SELECT plan_id FROM plan_periods AS first WHERE first.tenant_id = own.tenant_id ORDER BY started_at LIMIT 1
    ), own.plan_id), own.anchor
    FROM subscriptions AS own
    WHERE own.status IN {SERVING} AND own.plan_id IS NOT NULL AND own.anchor IS NOT NULL AND NOT EXISTS (
        SELECT FROM plan_periods AS known WHERE known.tenant_id = own.tenant_id AND known.started_at <= own.anchor
    )
    """,  # noqa: S608 - the same
    f"""
    INSERT INTO plan_periods (tenant_id, started_at, plan_id)
    SELECT tenant_id, CASE WHEN status = 'past_due' THEN past_due_since + {GRACE} ELSE coalesce(as_of, now()) END,
        'free'
    FROM subscriptions
    WHERE status NOT IN ('active', 'trialing', 'incomplete', 'incomplete_expired')
        AND (status <> 'past_due' OR past_due_since IS NOT NULL)
    ON CONFLICT (tenant_id, started_at) DO UPDATE SET plan_id = 'free', anchor = NULL
    """,  # noqa: S608 - the same
    """
    UPDATE usage_cycles AS cycle SET anchor = own.anchor FROM subscriptions AS own
    WHERE own.tenant_id = cycle.tenant_id AND cycle.cycle_start <> date_trunc('month', cycle.cycle_start, 'UTC')
    """,
    """
    UPDATE usage_cycles AS cycle SET settled_at = now()
    WHERE cycle_end <= now() AND (units <= request_limit OR request_limit IS NULL OR EXISTS (
        SELECT FROM overage_charges AS charge
        WHERE charge.tenant_id = cycle.tenant_id AND charge.cycle_start = cycle.cycle_start
    ))
    """,
    "ALTER TABLE usage_cycles DROP COLUMN request_limit, DROP COLUMN plan_id",
)


def upgrade() -> None:
    for statement in TABLES + FILL:
        op.execute(statement)


def downgrade() -> None:
    """The version before wants a limit and a plan with each month: those of the plan in force at its end."""
    op.execute("ALTER TABLE usage_cycles ADD COLUMN request_limit BIGINT, ADD COLUMN plan_id TEXT")
    op.execute(
        """
        UPDATE usage_cycles AS cycle SET plan_id = coalesce((
            SELECT plan_id FROM plan_periods AS held
            WHERE held.tenant_id = cycle.tenant_id AND held.started_at < cycle.cycle_end
            ORDER BY started_at DESC LIMIT 1
        ), (SELECT plan FROM tenants WHERE id = cycle.tenant_id))
        """
    )
    # The plans of that version; any other has no limit.
    op.execute(
        """
        UPDATE usage_cycles SET request_limit = CASE plan_id
            WHEN 'free' THEN 1000 WHEN 'plan-starter' THEN 10000 WHEN 'plan-growth' THEN 100000
        END
        """
    )
    op.execute("ALTER TABLE usage_cycles ALTER COLUMN plan_id SET NOT NULL")
    op.execute("ALTER TABLE usage_cycles DROP COLUMN settled_at, DROP COLUMN least_cap_cents, DROP COLUMN anchor")
    op.execute("ALTER TABLE subscriptions DROP COLUMN anchor")
    op.execute("DROP TABLE plan_periods")
