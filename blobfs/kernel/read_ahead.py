"""How far ahead of programs the kernel reads from a mount: sysfs has a number for each."""

import logging
import os
from pathlib import Path

logger = logging.getLogger(__name__)

READ_AHEAD_KIB = 1024  # the largest request of libfuse 3; more was not faster, and costs mmap readers


def raise_read_ahead(device: int) -> None:
    """Have the kernel read so far ahead from the mount with this device number, if that is allowed."""
    path = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    try:
        path.write_text(f"{READ_AHEAD_KIB}\n")
    except OSError as error:
        logger.info("kernel read-ahead stays as it is (%s): reads come in smaller requests", error.strerror)
