"""Structured logs: one JSON object per line, with the trace id of the request that caused it."""

import json
import logging
import sys
from typing import BinaryIO, cast

import msgspec
import structlog
from pydantic import Field

from configs.settings import Settings

CHATTY = ("alembic.runtime.plugins",)
"""Loggers that write a line for each of their own modules on import; only their warnings are shown."""


class LogSettings(Settings):
    """Logs of all processes."""

    level: str = Field(
        default="INFO",
        alias="LOG_LEVEL",
        pattern="^(DEBUG|INFO|WARNING|ERROR|CRITICAL)$",
        description="least level that is written: DEBUG, INFO, WARNING, ERROR or CRITICAL",
    )
    format: str = Field(
        default="json", alias="LOG_FORMAT", pattern="^(json|console)$", description="json, or console for people"
    )


def configure(program: str, settings: LogSettings | None = None) -> None:
    """Route structlog and the standard library's loggers through one renderer on stderr.

    Context variables (`structlog.contextvars.bind_contextvars(trace_id=...)`) appear on every line.
    """
    settings = settings or LogSettings()
    level = logging.getLevelNamesMapping()[settings.level]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_program(program),
        structlog.processors.format_exc_info,
    ]
    renderer = (
        structlog.processors.JSONRenderer(_as_json)
        if settings.format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    stderr = _Stderr()
    # Our own lines go directly to stderr. Through the standard library's loggers each takes four times as long.
    structlog.configure(
        processors=[*shared, renderer, cast(structlog.typing.Processor, _as_bytes)],
        logger_factory=structlog.BytesLoggerFactory(cast(BinaryIO, stderr)),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.level)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


class _Stderr:
    """Writes to what `sys.stderr` is at the time of writing, since loggers keep their stream for good."""

    def write(self, line: bytes | str) -> int:
        return sys.stderr.buffer.write(line) if isinstance(line, bytes) else sys.stderr.write(line)

    def flush(self) -> None:
        sys.stderr.flush()


def _add_program(program: str) -> structlog.typing.Processor:
    def add(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["program"] = program
        return event

    return add


def _as_json(event: structlog.typing.EventDict, **_options: object) -> str:
    try:
        return msgspec.json.encode(event, enc_hook=repr).decode()
    except (UnicodeEncodeError, TypeError):  # msgspec refuses half a surrogate pair and keys that are no text
        return json.dumps(event, default=repr, skipkeys=True)


def _as_bytes(_logger: object, _method: str, line: str) -> bytes:
    return line.encode(errors="replace")
