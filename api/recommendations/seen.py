"""What users really saw of answers, as clients report it."""

from uuid import UUID

from api.database.engine import Pool
from api.database.prepared import text_array
from api.database.scope import TenantScope
from api.http.problems import FieldError, Invalid, NotFound
from api.recommendations.answer_ids import once_written
from api.recommendations.impressions import ImpressionLog
from api.recommendations.schemas import SeenItem

_FOREIGN = "is not an item of that answer"


async def record_seen(
    pool: Pool, impressions: ImpressionLog, scope: TenantScope, recommendation_id: UUID, items: list[SeenItem]
) -> None:
    """Store which items of an answer were seen, and where. An item that is known as seen keeps its place and time.

    Raises NotFound where the tenant has no such answer, and Invalid, storing nothing, where it does not hold an item.
    """

    async def store() -> list[str] | None:
        rows = await pool.fetch(
            _STORE,
            scope.tenant_id,
            str(recommendation_id),
            text_array(item.item_id for item in items),
            text_array(str(item.position) for item in items),
        )
        return rows[0][0] if rows else None

    shown = await once_written(recommendation_id, store, impressions.flush)
    if shown is None:
        raise NotFound("There is no such answer")
    known = set(shown)
    wrong = [f"items[{index}].itemId" for index, item in enumerate(items) if item.item_id not in known]
    if wrong:
        errors = [FieldError(field=field, message=_FOREIGN) for field in wrong]
        raise Invalid(f"{wrong[0]}: {_FOREIGN}", errors)


# The lock makes an erasure of the user wait. Where the erasure was first, its end is waited for and no row is found.
_STORE = """
WITH shown AS MATERIALIZED (
    SELECT tenant_id, recommendation_id, item_ids FROM impressions
    WHERE tenant_id = $1 AND recommendation_id = $2::uuid
    FOR KEY SHARE
), stored AS (
    INSERT INTO seen_impressions (tenant_id, recommendation_id, item_id, position)
    SELECT shown.tenant_id, shown.recommendation_id, sent.item_id, sent.position
    FROM shown
    CROSS JOIN unnest($3::text[], $4::integer[]) WITH ORDINALITY AS sent (item_id, position, place)
    WHERE $3::text[] <@ shown.item_ids
    ORDER BY sent.place
    ON CONFLICT (tenant_id, recommendation_id, item_id) DO NOTHING
)
SELECT item_ids FROM shown
"""
