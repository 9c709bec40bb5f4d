"""Where log lines go."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import SysLogHandler, WatchedFileHandler
from pathlib import Path

from blobfs.cli.messages import shown
from blobfs.errors import CannotRun
from blobfs.settings import MountSettings

SYSLOG_SOCKET = Path("/dev/log")


def start_logging(settings: MountSettings) -> str:
    """Send log lines of this process where the settings say; return that place in words.

    Without a log file the place is stderr in the foreground, syslog in the background, and
    where there is no syslog a private file. Raises CannotRun when a file cannot be opened.
    """
    handler, place = _handler(settings)
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("blobfs").setLevel(settings.log_level.upper())
    # Its warnings quote request paths, and a SAS is part of those.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    return place


def log_path(settings: MountSettings) -> Path | None:
    """Return the log file, asked for or not; None for stderr or syslog."""
    if settings.log_file is None and (settings.foreground or SYSLOG_SOCKET.exists()):
        return None
    base = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser()
    service = settings.service
    return settings.log_file or base / "blobfs" / f"{service.account}-{service.container}.log"


def require_log(settings: MountSettings) -> None:
    """Raise CannotRun unless the log file, where there is one, takes a line."""
    if path := log_path(settings):
        handler = _formatted(_private_file(path, make_directory=settings.log_file is None))
        handler.close()
        begun = f"mounting {settings.service.account}/{settings.service.container} on {settings.mountpoint}"
        record = logging.LogRecord(__name__, logging.INFO, __file__, 0, begun, None, None)
        _append(path, f"{handler.format(record)}\n")


def _append(path: Path, line: str) -> None:
    try:
        with path.open("ab", buffering=0) as file:
            file.write(line.encode(errors="backslashreplace"))
    except OSError as error:
        raise CannotRun(f"cannot log to {path}: {error.strerror}. Give another --log-file.") from error


@contextmanager
def warnings_on_stderr() -> Iterator[None]:
    """Have warnings shown to whoever typed the command, as long as no log is there for them."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Shown("blobfs: %(message)s"))
    logger = logging.getLogger("blobfs")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Shown(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return shown(super().format(record))


def _handler(settings: MountSettings) -> tuple[logging.Handler, str]:
    path = log_path(settings)
    if path is not None:
        return _formatted(_private_file(path, make_directory=settings.log_file is None)), str(path)
    if settings.foreground:
        return _formatted(logging.StreamHandler()), "stderr"
    syslog = SysLogHandler(str(SYSLOG_SOCKET), SysLogHandler.LOG_DAEMON)
    syslog.setFormatter(logging.Formatter("blobfs[%(process)d]: %(levelname)s %(message)s"))
    return syslog, "syslog, as blobfs"


def _private_file(path: Path, *, make_directory: bool) -> logging.Handler:
    """Open a log file for its owner's eyes that may be moved away by logrotate at any time."""
    try:
        if make_directory:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.is_fifo():
            raise CannotRun(f"cannot log to {path}: a fifo has no room. Give another --log-file.")
        path.touch(mode=0o600)
        return WatchedFileHandler(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise CannotRun(f"cannot log to {path}: {error.strerror}. Give another --log-file.") from error


def _formatted(handler: logging.Handler) -> logging.Handler:
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    return handler
