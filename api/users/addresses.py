"""What an email address looks like. Whether it is somebody's is not asked."""

import re

FORM = re.compile(r"[^@\s\x00-\x1f\x7f\ud800-\udfff]{1,64}@[^@\s\x00-\x1f\x7f\ud800-\udfff]{1,255}")


def is_address(text: str) -> bool:
    return FORM.fullmatch(text) is not None
