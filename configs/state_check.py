"""Checks the object store of an installation when a program starts, and refuses what does not work with one."""

from typing import TYPE_CHECKING
from uuid import uuid4

from configs.state_settings import StateSettings

if TYPE_CHECKING:
    from configs.buckets import Bucket  # importing it loads the client, which local folders do not need

_PROBE = ".probe"


class UnusableStateError(RuntimeError):
    """`STATE_URL` cannot be used as it is set. The message says why."""


def require_usable_state(*, writes: bool) -> None:
    """Raise UnusableStateError where the object store cannot be reached, or does not refuse to replace an object.

    Of two writers of the same release, only that refusal stops the second. Without `STATE_URL` nothing is checked.

    Args:
        writes: whether the program writes; one that only reads may have credentials that only read.
    """
    settings = StateSettings()
    if settings.url is None:
        return
    from configs.buckets import open_bucket

    try:
        bucket = open_bucket(settings)
        next(bucket.below(_PROBE), None)
        refuses = not writes or _refuses_to_replace(bucket)
    except Exception as error:  # whatever the SDK raises for what it is given
        raise UnusableStateError(f"STATE_URL {settings.url} cannot be used: {error}") from error
    if not refuses:
        raise UnusableStateError(
            f"STATE_URL {settings.url} leads to a store that ignores If-None-Match, so that two writers at once would "
            "destroy each other's files: use a store that honours it"
        )


def refuse_with_state_url(what: str) -> None:
    """Raise UnusableStateError where `STATE_URL` is set, for what works on files of the state folder alone."""
    if StateSettings().url is not None:
        raise UnusableStateError(
            f"{what} does not work with STATE_URL: it reads and writes the lake and releases as files of this machine"
        )


def _refuses_to_replace(bucket: "Bucket") -> bool:
    key = f"{_PROBE}/{uuid4().hex}"
    bucket.put(key, b"", new=True)
    try:
        bucket.put(key, b"", new=True)
    except FileExistsError:
        return True
    finally:
        bucket.delete([key])
    return False
