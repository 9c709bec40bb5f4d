"""What all programs that are measured have in common, and what rclone and others want to be told."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.services import Service

PROJECT = Path(__file__).parents[2]


class Failed(Exception):
    """A system could not do its work, with what it said."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program with its options. Subclasses know how it is used."""

    name: str
    options: tuple[str, ...] = ()

    @property
    def program(self) -> str:
        """What must be on PATH."""
        raise NotImplementedError

    @property
    def version(self) -> str:
        """What the program says it is."""
        raise NotImplementedError


def rclone_environment(service: Service) -> dict[str, str]:
    """Return the remote ``bench:`` as rclone wants it."""
    remote = {
        "TYPE": "azureblob",
        "ACCOUNT": service.server.account,
        "KEY": service.server.key,
        "ENDPOINT": service.endpoint,
    }
    prefixed = {f"RCLONE_CONFIG_BENCH_{name}": value for name, value in remote.items()}
    return {**prefixed, "RCLONE_CONFIG": os.devnull, **trust(service)}


def trust(service: Service) -> dict[str, str]:
    """Return what makes programs in Go believe the service's certificate."""
    return {"SSL_CERT_FILE": str(service.certificate)} if service.certificate else {}


def said(*command: str) -> str:
    """Return what a program says, without the line's end."""
    return subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, check=False).stdout.strip()
