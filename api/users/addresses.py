"""The form of an email address. Whether the address exists is not checked."""

import re

PATTERN = r"^[^@\s\x00-\x1f\x7f-\x9f]{1,64}@[^@\s\x00-\x1f\x7f-\x9f]{1,255}$"
_WHOLE = re.compile(PATTERN.strip("^$"))
_SURROGATES = re.compile("[\ud800-\udfff]")


def is_address(text: str) -> bool:
    return _WHOLE.fullmatch(text) is not None and _SURROGATES.search(text) is None
