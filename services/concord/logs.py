"""How a process says in its log what happens: as text for people, or as one JSON object per line for machines.

Everything of ours, and of the server under it, takes the level that was asked for; other libraries say only what is
wrong. Knows no setting's name and no framework.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")
_OURS = ("concord", "uvicorn")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}
"""What each record has; whatever else it has was given as `extra`."""

_ONE_LINE = {ord("\n"): "\\n", ord("\r"): "\\r"}

log = logging.getLogger(__name__)


def configure(form: str, level: str, *, site: str = "", process: str = "") -> None:
    """Have this process say on stderr what is of `level` or worse, in one of FORMATS; the last call counts.

    `site` and `process` (its name, such as `trainer`) go into every JSON line. In JSON nothing else is on stderr: an
    exception that nobody expected is a line too.
    """
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Stderr)]:
        root.removeHandler(handler)
    formatter = JsonFormatter({"site": site, "process": process}) if form == "json" else TextFormatter()
    root.addHandler(_Stderr(formatter))
    for name in _OURS:
        logging.getLogger(name).setLevel(level.upper())
    logging.captureWarnings(form == "json")
    sys.excepthook = _log_exception if form == "json" else sys.__excepthook__
    threading.excepthook = _log_thread if form == "json" else threading.__excepthook__


def is_json() -> bool:
    """Whether this process writes its log in JSON."""
    return any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers)


class TextFormatter(logging.Formatter):
    """`2026-01-02T03:04:05.678Z INFO concord.site.loop: finished after 9 rounds`, then the fields as `name=value`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and below it an exception if there is one."""
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        said = f"{record.getMessage()}{fields}".translate(_ONE_LINE)  # what others say must not look like our lines
        line = f"{_time(record)} {record.levelname} {record.name}: {said}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object (RFC 8259) on one line; `always` is in each."""

    def __init__(self, always: Mapping[str, str]) -> None:
        super().__init__()
        self._always = {name: value for name, value in always.items() if value}

    def format(self, record: logging.LogRecord) -> str:
        """`time` (RFC 3339, UTC, milliseconds), `level`, `logger`, `message`, what is always there, then the fields."""
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **self._always,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(_fields(record) | line, default=str)


class _Stderr(logging.Handler):
    """Writes to what stderr is at the time."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.addFilter(_is_wanted)

    def emit(self, record: logging.LogRecord) -> None:
        """One line; what goes wrong is told as the library tells it, and the process goes on."""
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


def _is_wanted(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or record.name.partition(".")[0] in _OURS


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _log_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        log.critical("ended by an error that nobody expected", exc_info=(kind, error, trace))


def _log_thread(given: threading.ExceptHookArgs) -> None:
    if given.exc_value is not None and given.exc_type is not SystemExit:
        name = given.thread.name if given.thread is not None else "?"
        trace = (given.exc_type, given.exc_value, given.exc_traceback)
        log.critical("the thread %s ended by an error that nobody expected", name, exc_info=trace)
