"""The identity of the cluster that transaction ids belong to, and what makes a restored database count its own.

`cluster_identity` names the cluster's lineage: its system identifier, its timeline (which a restore to an older moment
and a failover change), the database and the table `interactions` (which a restore of a dump makes anew). Every role may
call it: PostgreSQL lets everybody call what it is made of.

In a new cluster transaction ids start low, while restored rows hold those of the cluster that they were written in.
`adopt_cluster` gives rows whose transaction cannot have happened here the lowest id that there is, and lets analytics
count anew. Exports and roll-ups call it first; where nothing has changed it reads one row. Its owner's rights make it
work for roles that do not own the tables.

Revision: 0013
"""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE adopted_cluster (
    single BOOLEAN DEFAULT true NOT NULL,
    identity TEXT NOT NULL,
    adopted_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT adopted_cluster_pkey PRIMARY KEY (single),
    CONSTRAINT adopted_cluster_single_check CHECK (single)
)
"""

IDENTITY = """
CREATE FUNCTION cluster_identity() RETURNS TEXT LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT concat_ws('/',
        (SELECT system_identifier FROM pg_control_system()),
        left(pg_walfile_name(pg_current_wal_lsn()), 8),
        (SELECT oid FROM pg_database WHERE datname = current_database()),
        'interactions'::regclass::oid
    )
$$
"""

# A visible row of this cluster has an id below the snapshot's xmax. A row at or above it was written elsewhere.
ELSEWHERE = "xid >= pg_snapshot_xmax(pg_current_snapshot())"

# The first id of an ordinary transaction: below every cursor, so that no export takes these rows as new.
ADOPT = f"""
CREATE FUNCTION adopt_cluster() RETURNS TEXT LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    present TEXT := cluster_identity();
BEGIN
    IF EXISTS (SELECT FROM adopted_cluster WHERE identity = present) THEN
        RETURN present;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('adopt cluster', 0));
    IF EXISTS (SELECT FROM adopted_cluster WHERE identity = present) THEN
        RETURN present;
    END IF;
    IF EXISTS (SELECT FROM analytics_totals WHERE next_xid > pg_snapshot_xmax(pg_current_snapshot()))
        OR EXISTS (SELECT FROM users WHERE {ELSEWHERE})
        OR EXISTS (SELECT FROM interactions WHERE {ELSEWHERE})
        OR EXISTS (SELECT FROM impressions WHERE {ELSEWHERE})
        OR EXISTS (SELECT FROM tombstones WHERE {ELSEWHERE})
    THEN
        PERFORM FROM analytics_totals ORDER BY tenant_id FOR UPDATE;
        PERFORM set_config('recommendai.history_counted', 'yes', true);
        UPDATE users SET xid = '3' WHERE {ELSEWHERE};
        UPDATE interactions SET xid = '3' WHERE {ELSEWHERE};
        UPDATE impressions SET xid = '3' WHERE {ELSEWHERE};
        UPDATE tombstones SET xid = '3' WHERE {ELSEWHERE};
        DELETE FROM analytics_active_users;
        DELETE FROM analytics_days;
        UPDATE analytics_totals SET next_xid = '0', users = 0, interactions = 0, shown = 0;
        PERFORM set_config('recommendai.history_counted', '', true);
    END IF;
    INSERT INTO adopted_cluster AS known (identity) VALUES (present)
    ON CONFLICT (single) DO UPDATE SET identity = excluded.identity, adopted_at = now();
    RETURN present;
END $$
"""  # noqa: S608 - constants of this module

# Histories do not hold the id, so its change alone makes none of them out of date.
HISTORY_CHANGED = """
CREATE TRIGGER history_changed AFTER UPDATE ON interactions REFERENCING OLD TABLE AS gone NEW TABLE AS come
FOR EACH STATEMENT {condition} EXECUTE FUNCTION count_history_changes()
"""
UNCOUNTED = "WHEN (current_setting('recommendai.history_counted', true) IS DISTINCT FROM 'yes')"


def upgrade() -> None:
    for statement in (TABLE, IDENTITY, ADOPT):
        op.execute(statement)
    op.execute("DROP TRIGGER history_changed ON interactions")
    op.execute(HISTORY_CHANGED.format(condition=UNCOUNTED))


def downgrade() -> None:
    op.execute("DROP TRIGGER history_changed ON interactions")
    op.execute(HISTORY_CHANGED.format(condition=""))
    op.execute("DROP FUNCTION adopt_cluster")
    op.execute("DROP FUNCTION cluster_identity")
    op.execute("DROP TABLE adopted_cluster")
