"""Systems that copy without a mount: copy tools, and curl as the limit of what requests can do."""

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokens import container_sas

from bench.cells import Ideal, Place, Span, Workload
from bench.programs import PROJECT, Failed, Program, rclone_environment, said, trust
from bench.services import Service

ERROR_CHARACTERS = 500
BLOBXFER_HERE = Path(__file__).with_name("blobxfer_here.py")
ONE_SHOT_BYTES = 8 << 20  # as for the others, what is smaller goes in one request


@dataclass(frozen=True, slots=True)
class CopySystem(Program):
    """A program that copies. Subclasses know its command line."""

    def can_do(self, workload: Workload) -> bool:
        """Whether the workload has a meaning for it."""
        return workload.transfer is not None

    def job(self, service: Service, container: str, workload: Workload, place: Place) -> Callable[[], None]:
        """Get everything ready, and return what does the workload, which raises Failed."""
        transfer = workload.transfer
        assert transfer is not None
        name = transfer.name
        local = place.source / name if transfer.is_upload else place.scratch / name
        command = self.command(service, container, name, local, is_upload=transfer.is_upload)
        state = place.scratch / "state"
        state.mkdir()
        environment = {**os.environ, **self.environment(service, state)}
        return lambda: _run([command], environment)

    def command(
        self, service: Service, container: str, name: str, local: Path, *, is_upload: bool
    ) -> list[str]:
        """Return what copies one file or tree."""
        raise NotImplementedError

    def environment(self, service: Service, state: Path) -> Mapping[str, str]:
        """Return what it needs to know besides; `state` is an empty directory for its files."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class RcloneCopy(CopySystem):
    """rclone copyto, which takes files and trees."""

    @property
    def program(self) -> str:
        return "rclone"

    @property
    def version(self) -> str:
        return said("rclone", "version").partition("\n")[0]

    def command(
        self, service: Service, container: str, name: str, local: Path, *, is_upload: bool
    ) -> list[str]:
        ends = [str(local), f"bench:{container}/{name}"]
        return ["rclone", "copyto", *(ends if is_upload else reversed(ends)), *self.options]

    def environment(self, service: Service, state: Path) -> Mapping[str, str]:
        return rclone_environment(service)


@dataclass(frozen=True, slots=True)
class AzCopy(CopySystem):
    """AzCopy."""

    @property
    def program(self) -> str:
        return "azcopy"

    @property
    def version(self) -> str:
        return said("azcopy", "--version")

    def command(
        self, service: Service, container: str, name: str, local: Path, *, is_upload: bool
    ) -> list[str]:
        url, is_tree = service.url(container, name), _is_tree(name)
        if is_upload:
            ends = [f"{local}/*" if is_tree else str(local), url, "--from-to=LocalBlob"]
        else:
            ends = [url, str(local.parent if is_tree else local), "--from-to=BlobLocal"]
        recursive = ["--recursive"] if is_tree else []
        return ["azcopy", "copy", *ends, *recursive, "--output-level=essential", *self.options]

    def environment(self, service: Service, state: Path) -> Mapping[str, str]:
        places = {"AZCOPY_LOG_LOCATION": f"{state}/logs", "AZCOPY_JOB_PLAN_LOCATION": f"{state}/plans"}
        return {**places, "AZCOPY_DISABLE_SYSLOG": "true", **trust(service)}


@dataclass(frozen=True, slots=True)
class Blobxfer(CopySystem):
    """blobxfer, in its own environment: its libraries are older than those of today."""

    @property
    def program(self) -> str:
        return str(PROJECT / ".tools/blobxfer/bin/blobxfer")

    @property
    def version(self) -> str:
        return said(self.program, "--version")

    def command(
        self, service: Service, container: str, name: str, local: Path, *, is_upload: bool
    ) -> list[str]:
        is_tree = _is_tree(name)
        here = local.parent if is_tree and not is_upload else local
        ends = [f"--remote-path={container}/{name}", f"--local-path={here}"]
        # Not an emulator's account, or it asks for what emulators have not; the token says whose it is.
        access = ["--storage-account=bench", f"--sas={container_sas(container)}"]
        whole = [] if is_tree else ["--rename"]
        small = [f"--one-shot-bytes={ONE_SHOT_BYTES}"] if is_upload else []
        python = str(Path(self.program).with_name("python"))
        verb = "upload" if is_upload else "download"
        return [python, str(BLOBXFER_HERE), verb, *access, *ends, *whole, *small, "--quiet", *self.options]

    def environment(self, service: Service, state: Path) -> Mapping[str, str]:
        trusted = {"REQUESTS_CA_BUNDLE": str(service.certificate)} if service.certificate else {}
        return {"BENCH_ENDPOINT": service.endpoint, **trusted}


@dataclass(frozen=True, slots=True)
class Curl(CopySystem):
    """The same requests by several processes that do nothing else: the raw limit."""

    @property
    def program(self) -> str:
        return "curl"

    @property
    def version(self) -> str:
        return " ".join(said("curl", "--version").split()[:2])

    def can_do(self, workload: Workload) -> bool:
        return workload.ideal is not None

    def job(self, service: Service, container: str, workload: Workload, place: Place) -> Callable[[], None]:
        assert workload.ideal is not None
        requests = list(_requests(service, container, workload.ideal, place.scratch))
        trusted = f'cacert = "{service.certificate}"\n' if service.certificate else ""
        commands = []
        for number in range(min(workload.ideal.connections, len(requests))):
            share = requests[number :: workload.ideal.connections]
            configuration = place.scratch / f"requests-{number}"
            configuration.write_text("next\n".join(f"silent\nfail\n{trusted}{each}" for each in share))
            commands.append(["curl", "--config", str(configuration)])
        return lambda: _run(commands, os.environ)


def _is_tree(name: str) -> bool:
    return "." not in name and name != "large"


def _requests(service: Service, container: str, ideal: Ideal, scratch: Path) -> Iterator[str]:
    """Yield each request as curl's configuration has it."""
    for span in ideal.gets:
        end = span.start + span.size_bytes - 1
        url = service.url(container, span.name)
        yield f'url = "{url}"\nrange = "{span.start}-{end}"\noutput = "/dev/null"\n'
    for span in ideal.puts:
        yield _put(service, container, span, scratch, is_block=ideal.are_blocks)


def _put(service: Service, container: str, span: Span, scratch: Path, *, is_block: bool) -> str:
    body = scratch / f"body-{span.size_bytes}"
    if not body.exists():
        body.write_bytes(bytes(span.size_bytes))
    url = service.url(container, span.name)
    url += f"&comp=block&blockid={span.start:016d}" if is_block else ""
    return (
        f'url = "{url}"\nupload-file = "{body}"\noutput = "/dev/null"\n'
        'header = "Expect:"\nheader = "x-ms-blob-type: BlockBlob"\n'
    )


def _run(commands: Sequence[Sequence[str]], environment: Mapping[str, str]) -> None:
    """Run programs at once. Raises Failed if one does."""
    processes = [
        subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for command in commands
    ]
    for process in processes:
        said_last, _ = process.communicate()
        if process.returncode:
            text = said_last[-ERROR_CHARACTERS:]
            raise Failed(f"{commands[0][0]} ended with {process.returncode}: {text}")
