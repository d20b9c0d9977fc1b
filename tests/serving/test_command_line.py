"""`python -m serving`."""

import os
from pathlib import Path
from typing import Any

import pytest

from serving.__main__ import serve


class _StartedError(Exception):
    """The process would have become the server."""


@pytest.mark.parametrize(("host", "is_warned"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_a_model_server_that_other_machines_reach_warns(
    host: str, is_warned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def started(*_: Any) -> None:
        raise _StartedError

    monkeypatch.setenv("SERVING_HOST", host)
    monkeypatch.setenv("RECOMMENDAI_STATE_DIR", str(tmp_path))
    monkeypatch.setattr(os, "execve", started)
    with pytest.raises(_StartedError):
        serve(port=None)
    assert (f"listens on {host}" in capsys.readouterr().err) == is_warned
