"""The locks that order writes about a user before or after the user's erasure.

Some rows name a user without a foreign key, so that no lock on the user's row orders their writers and an erasure.
After the shared lock, no user is erased until the writer's transaction ends. Whether one was erased before, a later
statement of the transaction finds out.
"""

_ALL = "hashtextextended('erasure', 0)"
_OF_TENANT = "hashtextextended('erasure/' || %(tenant)s, 0)"

NO_ERASURE_MEANWHILE = f"SELECT pg_advisory_xact_lock_shared({_ALL})"
"""For writers of rows of many tenants."""
NO_ERASURE_IN_TENANT = f"SELECT pg_advisory_xact_lock_shared({_OF_TENANT})"
"""For writers of one tenant's rows, who then wait for no other tenant's erasures."""

ERASE_ALONE = f"SELECT pg_advisory_xact_lock({_ALL})"
"""The erasure's own statement: it waits for those writers, and later ones wait for the end of its transaction."""
ERASE_ALONE_IN_TENANT = f"SELECT pg_advisory_xact_lock({_OF_TENANT})"
