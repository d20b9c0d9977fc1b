"""Tags of API keys: whoever does not know the installation's secret cannot make a key that looks like one of ours.

A key is `rk_`, 24 random bytes and 8 bytes of their HMAC, in base64url. Keys
of versions before have 32 random bytes and no tag. Their hashes are known to each process (`api.keys.known_keys`).
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets

PREFIX = "rk_"
PATTERN = re.compile(r"rk_[A-Za-z0-9_-]{43}")
_RANDOM_BYTES, _TAG_BYTES = 24, 8
_RANDOM_LENGTH = len(PREFIX) + _RANDOM_BYTES * 4 // 3


def make_key(secret: bytes) -> str:
    """A new key, with a tag by this secret."""
    random = PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    return random + base64.urlsafe_b64encode(_tag(random, secret)).decode().rstrip("=")


def has_tag(key: str, secret: bytes) -> bool:
    """Whether a text with the form of a key has a tag by this secret."""
    try:
        tag = base64.b64decode(key[_RANDOM_LENGTH:] + "=", altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(tag, _tag(key[:_RANDOM_LENGTH], secret))


def _tag(random: str, secret: bytes) -> bytes:
    return hmac.digest(secret, random.encode(), hashlib.sha256)[:_TAG_BYTES]
