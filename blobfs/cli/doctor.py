"""`blobfs doctor`: what may keep a mount from working, and what to do about it."""

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import click

from blobfs.cli.commands import ConfiguredCommand, said_of_usage
from blobfs.cli.logs import warnings_on_stderr
from blobfs.cli.options import service_of, shared_parameters
from blobfs.doctor.findings import Finding, Level

OWN_PARAMETERS: tuple[click.Parameter, ...] = (
    click.Option(
        ["--bandwidth/--no-bandwidth"],
        default=True,
        help="Measure how fast a blob can be read, for some seconds.  [default: bandwidth]",
    ),
    click.Option(["--json", "as_json"], is_flag=True, help="Print a JSON list of findings."),
)

_COLOURS = {Level.OK: "green", Level.NOTE: "yellow", Level.PROBLEM: "red"}


@click.command(
    cls=ConfiguredCommand,
    params=[*shared_parameters("account", "container"), *OWN_PARAMETERS],
    short_help="Find what keeps a mount from working.",
)
@click.pass_context
def doctor(ctx: click.Context, /, *, bandwidth: bool, as_json: bool, **values: Any) -> None:
    """Examine this machine, the network, the credential, and CONTAINER of ACCOUNT, and say what to do.

    Changes nothing. Exits with 1 if there is a problem that keeps a mount from working.
    """
    # Only now: the client of the service costs the other commands time.
    from blobfs.doctor.examination import check, examine

    service = service_of(ctx, values["account"], values["container"])
    with said_of_usage(), warnings_on_stderr():
        check(service)
    logging.getLogger("blobfs").addHandler(logging.NullHandler())  # the findings say it all
    findings = examine(service, memory_bytes=values["memory"], measures_bandwidth=bandwidth)
    levels = _print_json(findings) if as_json else _print_lines(findings)
    ctx.exit(1 if Level.PROBLEM in levels else 0)


def _print_json(findings: Iterable[Finding]) -> set[Level]:
    """Print a list; return which levels were in it."""
    made = list(findings)
    click.echo(json.dumps([{**asdict(finding), "level": finding.level.value} for finding in made], indent=2))
    return {finding.level for finding in made}


def _print_lines(findings: Iterable[Finding]) -> set[Level]:
    """Print each finding as it is made; return which levels were among them."""
    levels = set()
    for finding in findings:
        mark = click.style(f"{finding.level.value:8}", fg=_COLOURS[finding.level])
        click.echo(f"{mark}{finding.check}: {finding.text}")
        if finding.cure:
            click.echo(f"{'':8}{finding.cure}")
        levels.add(finding.level)
    return levels
