"""What an examination finds."""

from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How bad a finding is."""

    OK = "ok"
    NOTE = "note"  # works, but somebody may want to know
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    check: str  # which
    level: Level
    text: str
    cure: str = ""  # what to do, unless all is well


def ok(check: str, text: str) -> Finding:
    """Return a finding that needs nothing."""
    return Finding(check, Level.OK, text)


def note(check: str, text: str, cure: str = "") -> Finding:
    """Return a finding that somebody may want to know."""
    return Finding(check, Level.NOTE, text, cure)


def problem(check: str, text: str, cure: str) -> Finding:
    """Return a finding that keeps a mount from working."""
    return Finding(check, Level.PROBLEM, text, cure)
