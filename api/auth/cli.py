"""Commands about the keys that sign tokens."""

import sys
from typing import Annotated

import typer

from api.auth import signing_keys
from api.terminal import fail
from configs.auth import AuthSettings
from configs.settings import PathSettings

app = typer.Typer()


@app.command()
def rotate_signing_key(
    revoke_others: Annotated[
        bool, typer.Option(help="for a key that leaked: accept no other key any more, which logs everybody out")
    ] = False,
) -> None:
    """Sign tokens with a new key and print its id. Nobody is logged out, and nothing has to be restarted."""
    try:
        key = signing_keys.rotate_signing_key(AuthSettings(), PathSettings(), revoke_others=revoke_others)
    except ValueError as error:
        fail(str(error))
    when = "at once" if revoke_others else f"in {signing_keys.ACTIVE_AFTER_SECONDS:.0f} seconds"
    print(f"the key is in {PathSettings().signing_keys_file} and signs {when}", file=sys.stderr)
    print(key.kid)
