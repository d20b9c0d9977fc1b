"""`python -m configs.health_check URL`: whether a program answers, for containers and monitors without curl.

Status 0 where the answer is a success, or a 401: a console that asks for a login is up.
"""

import sys
import urllib.error
import urllib.request
from http import HTTPStatus

SECONDS = 5.0


def is_healthy(url: str) -> bool:
    """Whether this `http` address answers. Raises ValueError for another kind of address."""
    if not url.startswith("http://"):
        raise ValueError(f"not an http address: {url}")
    try:
        with urllib.request.urlopen(url, timeout=SECONDS):  # noqa: S310 - checked above
            return True
    except urllib.error.HTTPError as error:
        return error.code == HTTPStatus.UNAUTHORIZED
    except OSError:
        return False


def main() -> None:
    """Check the address in the first argument."""
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.executable} -m configs.health_check URL")
    sys.exit(0 if is_healthy(sys.argv[1]) else 1)


if __name__ == "__main__":
    main()
