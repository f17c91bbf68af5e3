"""Structured logs: JSON, or readable on a terminal. No telephone number, message id or secret, at any level.

The bridge logs no data; the masking here is for what comes in by an error's text or another library. aiokafka's lines below
ERROR hold keys and values: its level is pinned, and they are dropped here whoever raises it.

A callback is a line at DEBUG only, and every line about one has its id as ``callback``, which is the header
``bridge_callback`` of its records. Above DEBUG what repeats itself is sampled: the first fifty lines of an event within ten
seconds; the next after them says how many were left out.
"""

import logging
import re
import sys
import time
from collections.abc import Sequence
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from bridge.config import Log

# A run of digits as long as a telephone number's, or an id's. Times in milliseconds are masked with them: none is logged.
_LONG_DIGITS = re.compile(r"\d{8,}")
_LONG = 10**7
_SECRET_PATH = re.compile(r"(/callbacks/chatapp/status/)[^\s\"'?]+")
# Keys whose values are the bridge's own, and may hold long numbers: what a topic's settings are, where a file is.
_OWN_KEYS = frozenset({"timestamp", "level", "logger", "what", "path", "callback"})
# So many lines of an event within so many seconds, and the rest of them is left out.
_BURST, _WINDOW_SECONDS = 50, 10.0


def configure(settings: Log, secrets: Sequence[str] = ()) -> None:
    """Send all logs, the standard library's too, to standard error.

    Args:
        settings: ``[log]``.
        secrets: texts that never appear, wherever they come from; ``hide`` adds to them.
    """
    hide(secrets)
    console = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.format_exc_info,
        _mask,
    ]
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if console
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    handler.addFilter(_is_free_of_data)
    handler.addFilter(Sampler())
    level = logging.getLevelName(settings.level.upper())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # What it sees is said by what this project logs of the cluster; it repeats itself many times a second while brokers or topics
    # are away, and below ERROR it may print what it sends.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    # Each request, at INFO; those of AWS print at DEBUG what they sign, credentials included.
    for chatty in ("_granian", "httpx", "boto3", "botocore", "urllib3"):
        logging.getLogger(chatty).setLevel(max(level, logging.WARNING))


def hide(secrets: Sequence[str]) -> None:
    """From now on these texts never appear in a log; nor do those of before, which somebody may still use."""
    _mask.hide(secrets)


def _is_free_of_data(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR or not record.name.startswith("aiokafka")


class Sampler(logging.Filter):
    """Leaves out what repeats itself; never a line at DEBUG, which is asked for."""

    def __init__(self) -> None:
        super().__init__()
        # by logger, level and event: when its window began, and how many came in it
        self._windows: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is written."""
        if record.levelno <= logging.DEBUG:
            return True
        message: Any = record.msg  # structlog's is the event's dict
        event = str(message.get("event")) if isinstance(message, dict) else str(message)
        key, now = (record.name, record.levelno, event), time.monotonic()
        began, count = self._windows.get(key, (now, 0))
        left_out = 0
        if now - began >= _WINDOW_SECONDS:
            left_out = max(0, count - _BURST)
            began, count = now, 0
        self._windows[key] = began, count + 1
        if left_out and isinstance(message, dict):
            record.msg = {**message, "left_out": left_out}
        elif left_out:
            record.left_out = left_out
        return count < _BURST


class _Mask:
    """Replaces secrets, and long runs of digits, in everything that is logged."""

    def __init__(self) -> None:
        self._hidden: set[str] = set()
        self._secrets: re.Pattern[str] | None = None

    def hide(self, secrets: Sequence[str]) -> None:
        self._hidden.update(secrets)
        # Longest first: one may be the beginning of another.
        ordered = sorted(self._hidden, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {key: value if key.startswith("_") else self._masked(key, value) for key, value in event.items()}

    def _masked(self, key: str, value: Any) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            return value if abs(value) < _LONG or key.endswith("bytes") else "***"
        if isinstance(value, dict):
            return {self._masked("", inner): self._masked(str(inner), of) for inner, of in value.items()}
        if isinstance(value, list | tuple):
            return [self._masked(key, of) for of in value]
        # Of anything else a renderer would write the repr.
        text = _SECRET_PATH.sub(r"\1***", value if isinstance(value, str) else repr(value))
        if self._secrets is not None:
            text = self._secrets.sub("***", text)
        return text if key in _OWN_KEYS else _LONG_DIGITS.sub("***", text)


_mask = _Mask()
