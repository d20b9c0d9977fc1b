"""A full disk is a matter of time: what needs room answers 503 until there is some."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from api.http.problems import Unavailable

RETRY_SECONDS = 60
_FULL = (errno.ENOSPC, errno.EDQUOT)

log = structlog.get_logger(__name__)


@contextmanager
def needing_disk() -> Iterator[None]:
    """Raises Unavailable where the block finds the disk or the quota full. Other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        log.error("the disk is full", error=repr(error))
        raise Unavailable("The server has no room to store this", RETRY_SECONDS) from error
