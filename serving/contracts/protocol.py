"""Which versions of the protocol between API and model server this program speaks, and how both agree on one.

Each program speaks the newest version and the one before, so that API and model server may be upgraded in either order.

- The media type of a batch names its version. The answer has the version of the batch.
- A server answers 415 to a version that it does not know.
- Every answer of a server, also the 415, has the newest version that it speaks in `VERSION_HEADER`. Servers of
  version 1 send no such header.

A client starts with the newest version. Where it gets a 415 it sends the batch once more in the version that the server
can read, and stays with it until an answer's header says that the server speaks a newer one.
"""

from serving.contracts.codec import Codec
from serving.contracts.version_1 import VERSION_1
from serving.contracts.version_2 import VERSION_2

VERSION_HEADER = "recommendai-protocol"
SPOKEN: dict[int, Codec] = {codec.version: codec for codec in (VERSION_1, VERSION_2)}
NEWEST = max(SPOKEN)
BY_MEDIA_TYPE: dict[str, Codec] = {codec.media_type: codec for codec in SPOKEN.values()}


def agreed_codec(newest_of_server: str | None) -> Codec | None:
    """The newest version that both speak; None where there is none.

    newest_of_server: the value of `VERSION_HEADER` in an answer, None where it is missing.
    """
    if newest_of_server is None:
        return VERSION_1
    if not newest_of_server.isascii() or not newest_of_server.isdigit():
        return None
    return SPOKEN.get(min(int(newest_of_server[:4]), NEWEST))
