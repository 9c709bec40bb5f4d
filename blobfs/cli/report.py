"""A mount's status in words, as a table for people."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import pairwise
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from blobfs.cli.looks import Facts, Looks
from blobfs.cli.messages import printable
from blobfs.cli.options import DEFAULTS

Row = tuple[str, str]

PIPE_WIDTH = 4000
NAMED_FILES = 10  # `--json` names more

_KNOWN_ELSEWHERE = ("account", "container", "mountpoint", "prefix", "read_only")


def print_tables(looks: Looks) -> None:
    """Print a table for each mount that gave its facts. No line is broken where no terminal shows it."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    console.print(Group(*_tables(looks)))


def show_tables(looks: Looks, interval_seconds: float) -> None:
    """Show the tables on the terminal, and keep them up to date, until interrupted."""
    with suppress(KeyboardInterrupt), Live(_all(looks), auto_refresh=False) as live:
        while True:
            looks.take(interval_seconds)
            live.update(_all(looks), refresh=True)


def _all(looks: Looks) -> Group:
    return Group(*_tables(looks), *map(Text, looks.troubles))


def _tables(looks: Looks) -> list[Table | Text]:
    found = [_table(facts) for facts in looks.facts()]
    if found or looks.troubles:
        return [*found]
    return [Text("No mount of blobfs is here that you may ask.")]


def _table(facts: Facts) -> Table:
    where = "/".join(filter(None, (facts["account"], facts["container"], facts["prefix"])))
    title = Text(f"{facts['mountpoint']}: {where}")
    table = Table(title=title, title_justify="left", box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, words in (*_mount_rows(facts), *_service_rows(facts), *_cache_rows(facts)):
        table.add_row(Text(name), Text(words))
    return table


def _mount_rows(facts: Facts) -> Iterator[Row]:
    access = "read-only" if facts["read_only"] else "read-write"
    since = spell_seconds(facts["uptime_seconds"])
    yield "mount", f"{access}, by {facts['binding']}, process {facts['pid']} for {since}"
    yield "settings", ", ".join(_changed(facts["settings"])) or "the defaults"
    yield "credential", _credential(facts)
    count, size = facts["uncommitted_files"], spell_bytes(facts["uncommitted_bytes"])
    yield "not committed", f"{count:,} files and directories, {size} written" if count else "nothing"
    for file in facts["uncommitted"][:NAMED_FILES]:
        yield "", printable(f"{file['path']}: {file['reason']}")


def _changed(settings: Facts) -> Iterator[str]:
    """Yield the settings that are not as they would be unasked."""
    defaults = dict(_leaves(DEFAULTS.by_name()))
    for name, value in _leaves(settings):
        if name not in _KNOWN_ELSEWHERE and value != defaults.get(name):
            yield f"{name} = {value}"


def _leaves(settings: Mapping[str, Any], group: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each setting, those of groups after the group's name."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{group}{name}.")
        else:
            yield group + name, list(value) if isinstance(value, tuple) else value


def _credential(facts: Facts) -> str:
    left_seconds = facts["credential_left_seconds"]
    if left_seconds is None:
        return str(facts["credential"])
    ends = f"ends in {spell_seconds(left_seconds)}" if left_seconds > 0 else "HAS ENDED: renew it"
    return f"{facts['credential']}; {ends} ({facts['credential_expires']})"


def _service_rows(facts: Facts) -> Iterator[Row]:
    yield "service", "answers" if facts["service_answers"] else "DOES NOT ANSWER; see the mount's log"
    yield "programs", _flows(facts, program_read_bytes="read", program_written_bytes="written")
    yield "network", _flows(facts, received_bytes="received", sent_bytes="sent")
    yield (
        "in flight",
        f"{facts['requests_in_flight']} of at most {facts['requests_in_flight_limit']} requests",
    )
    yield "requests", _requests(facts["requests"])
    yield "repeated", f"{facts['retries']:,} retries; {facts['busy_replies']:,} times the service was busy"
    yield "checksums", f"{facts['damaged_replies']:,} failures"
    yield "cost", f"{facts['cost_usd']:.4f} USD for the requests, by the service's sample prices"


def _flows(facts: Facts, **verbs: str) -> str:
    """Say how much went each way in all, and how fast it goes now."""
    return ", ".join(
        f"{spell_bytes(facts[name])} {verb} ({spell_bytes(facts[f'{name}_per_second'])}/s now)"
        for name, verb in verbs.items()
    )


def _requests(counts: Mapping[str, int]) -> str:
    kinds = sorted(counts.items(), key=lambda item: -item[1])
    return ": ".join(
        filter(None, (f"{sum(counts.values()):,}", ", ".join(f"{n:,} {kind}" for kind, n in kinds)))
    )


def _cache_rows(facts: Facts) -> Iterator[Row]:
    yield "memory", f"{spell_bytes(facts['memory_bytes'])} of {spell_bytes(facts['memory_limit_bytes'])}"
    yield "memory cache", _cache(facts, "memory_cache")
    yield "disk cache", _cache(facts, "disk_cache") if "disk_cache_hits" in facts else "none"


def _cache(facts: Facts, name: str) -> str:
    hits, misses = facts[f"{name}_hits"], facts[f"{name}_misses"]
    reads = hits + misses
    share = f"{hits / reads:.0%} of {reads:,} reads found there" if reads else "not asked yet"
    held_bytes, limit = facts[f"{name}_bytes"], spell_bytes(facts[f"{name}_limit_bytes"])
    held = "not measured yet" if held_bytes is None else spell_bytes(held_bytes)
    return f"{held} of {limit}, {share}"


def spell_bytes(count: float) -> str:
    """Return a number of bytes for people: three digits and a unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def spell_seconds(seconds: float) -> str:
    """Return a duration for people, in its largest unit and the next."""
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    for (unit, size), (smaller, small_size) in pairwise(units):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} {seconds % size // small_size:.0f} {smaller}"
    return f"{seconds:.0f} s"
