"""`make install` chooses the index with the smallest build of torch, and prints why."""

import http.server
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.local.torch_index import CPU_INDEX, answers, choose

ROOT = Path(__file__).resolve().parents[2]


def never() -> bool:
    raise AssertionError("the index was asked, though the answer does not matter")


@pytest.fixture
def index() -> Iterator[str]:
    class Index(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/whl/cpu/torch/" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/whl/cpu"
    server.shutdown()
    server.server_close()


def test_a_machine_without_a_driver_gets_the_cpu_build() -> None:
    choice = choose("", installed=False, gpu=False, driver=False, cpu_index_answers=lambda: True)
    assert choice.url == CPU_INDEX
    assert "no NVIDIA driver" in choice.reason


def test_an_index_that_does_not_answer_leaves_the_choice_to_pip() -> None:
    choice = choose("", installed=False, gpu=False, driver=False, cpu_index_answers=lambda: False)
    assert choice.url == ""
    assert "does not answer" in choice.reason
    assert "4.8 GB" in choice.size


@pytest.mark.parametrize(
    ("wanted", "installed", "gpu", "driver", "expected"),
    [
        ("", True, False, False, ""),
        ("", False, True, False, ""),
        ("", False, False, True, ""),
        ("pip", False, False, False, ""),
        ("https://torch.example/whl", False, False, True, "https://torch.example/whl"),
        ("https://torch.example/whl", True, False, True, ""),  # what is installed is not fetched again
    ],
)
def test_what_the_user_or_the_machine_has_decides(
    wanted: str, installed: bool, gpu: bool, driver: bool, expected: str
) -> None:
    assert choose(wanted, installed, gpu, driver, never).url == expected


def test_only_an_index_that_lists_torch_answers(index: str) -> None:
    assert answers(index)
    assert not answers(f"{index}/elsewhere")


def test_a_silent_index_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        assert not answers(f"http://127.0.0.1:{silent.getsockname()[1]}", seconds=0.2)
        assert time.monotonic() - began < 30


@pytest.mark.service
def test_the_choice_is_one_line_on_stdout_and_words_on_stderr() -> None:
    script = ROOT / "configs" / "local" / "torch_index.py"
    command = [sys.executable, script, "--wanted", "https://torch.example/whl"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout == "https://torch.example/whl\n"
    assert "TORCH_INDEX=https://torch.example/whl asks for it" in found.stderr
    assert "TORCH_INDEX=pip" in found.stderr
