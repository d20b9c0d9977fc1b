"""Which users are held out: they get popular items in place of a model's, so that the two can be compared."""

from hashlib import blake2b

HOLDOUT = "holdout"
"""Why popularity answers them, in `X-Recommendation-Degraded` and beside their answers."""
_ENTROPY_BYTES = 8


def is_held_out(tenant_id: str, user_id: str, share: float) -> bool:
    """Whether a user is among the share (in [0, 1]) of the tenant's users that are held out.

    It depends on the two ids alone, so that every process says the same at any time. Who is held out at one share is
    held out at every larger one.
    """
    if share <= 0.0:
        return False
    digest = blake2b(f"{tenant_id}\0{user_id}".encode(), digest_size=_ENTROPY_BYTES, person=b"holdout").digest()
    return int.from_bytes(digest, "big") < share * 2 ** (8 * _ENTROPY_BYTES)
