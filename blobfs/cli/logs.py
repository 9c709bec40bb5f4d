"""Where log lines go."""

import logging
import os
from logging.handlers import SysLogHandler, WatchedFileHandler
from pathlib import Path

from blobfs.errors import Unavailable
from blobfs.settings import MountSettings

SYSLOG_SOCKET = Path("/dev/log")


def start_logging(settings: MountSettings) -> str:
    """Send log lines of this process where the settings say; return that place in words.

    Without a log file the place is stderr in the foreground, syslog in the background, and
    where there is no syslog a private file. Raises Unavailable when a file cannot be opened.
    """
    handler, place = _handler(settings)
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("blobfs").setLevel(settings.log_level.upper())
    # Its warnings quote request paths, and a SAS is part of those.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    return place


def _handler(settings: MountSettings) -> tuple[logging.Handler, str]:
    if settings.log_file is None and settings.foreground:
        return _formatted(logging.StreamHandler()), "stderr"
    if settings.log_file is None and SYSLOG_SOCKET.exists():
        syslog = SysLogHandler(str(SYSLOG_SOCKET), SysLogHandler.LOG_DAEMON)
        syslog.setFormatter(logging.Formatter("blobfs[%(process)d]: %(levelname)s %(message)s"))
        return syslog, "syslog, as blobfs"
    path = settings.log_file or _state_file(f"{settings.account}-{settings.container}.log")
    return _formatted(_private_file(path)), str(path)


def _state_file(name: str) -> Path:
    base = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser()
    directory = base / "blobfs"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory / name


def _private_file(path: Path) -> logging.Handler:
    """Open a log file for its owner's eyes that may be moved away by logrotate at any time."""
    try:
        path.touch(mode=0o600)
        return WatchedFileHandler(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise Unavailable(f"cannot log to {path}: {error.strerror}. Give another --log-file.") from error


def _formatted(handler: logging.Handler) -> logging.Handler:
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    return handler
