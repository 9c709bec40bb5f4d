"""The examples for administrators, run as they stand there, and what is made of the command definitions."""

import os
import re
import shlex
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from uuid import uuid4

import click
import pytest
from azure.storage.blob import ContainerClient
from azurite import Azurite
from mounts import PROJECT, Mounts, bash, is_mountpoint, run

from blobfs.cli.main import blobfs
from blobfs.cli.options import PARAMETERS
from blobfs.doctor.machine import UDEV_RULE
from blobfs.kernel.read_ahead import READ_AHEAD_KIB
from blobfs.metrics import COUNTERS, GAUGES

ADMIN = (PROJECT / "docs" / "admin.md").read_text()

# What Docker gives to every container: https://docs.docker.com/engine/containers/run/#runtime-privilege-and-linux-capabilities
OF_CONTAINERS = (
    *("audit_write", "chown", "dac_override", "fowner", "fsetid", "kill", "mknod", "net_bind_service"),
    *("net_raw", "setfcap", "setgid", "setpcap", "setuid", "sys_chroot"),
)


def example(name: str, **words: object) -> str:
    """Return an example by its name, or its language, with these words replaced."""
    (text,) = re.findall(rf"^```(?:\w+ )?{re.escape(name)}\n(.*?)^```", ADMIN, re.DOTALL | re.MULTILINE)
    for word, replacement in words.items():
        text = text.replace(word.replace("_", "/"), str(replacement))
    return str(text)


@pytest.fixture(scope="module")
def manual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("man")
    ended = bash(PROJECT, f"scripts/man {directory}")
    assert ended.returncode == 0, ended.stderr
    return directory


def names(group: click.Group, prefix: str = "blobfs") -> list[str]:
    found = [prefix]
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found += names(command, f"{prefix}-{name}")
        elif not command.hidden:
            found.append(f"{prefix}-{name}")
    return found


def test_every_command_has_a_manual_page_that_formats(manual: Path) -> None:
    assert sorted(page.stem for page in manual.iterdir()) == sorted(names(blobfs))
    for page in manual.iterdir():
        ended = bash(PROJECT, f"man --warnings -l {page} | cat", MANWIDTH=80)
        assert (ended.returncode, ended.stderr) == (0, "")


def test_the_manual_page_of_mount_has_every_option(manual: Path) -> None:
    text = (manual / "blobfs-mount.1").read_text().replace("\\-", "-")
    options = [param for param in PARAMETERS if isinstance(param, click.Option) and not param.hidden]
    assert [option.opts[-1] for option in options if option.opts[-1] not in text] == []


def test_completion_knows_commands_and_values(tmp_path: Path) -> None:
    ended = bash(tmp_path, example("bash-completion", DIRECTORY=tmp_path))
    assert ended.returncode == 0, ended.stderr
    complete = """
        source ./blobfs
        complete -p blobfs
        COMP_WORDS=({}) COMP_CWORD={}
        _blobfs_completion blobfs
        echo "${{COMPREPLY[*]}}"
    """
    said = bash(tmp_path, complete.format("blobfs st", 1)).stdout
    assert said.endswith("\nstatus\n")
    assert "-o default" in said
    assert "off blocks all" in bash(tmp_path, complete.format("blobfs mount --verify ''", 3)).stdout


def test_zsh_completes_commands_values_and_names_of_files(tmp_path: Path) -> None:
    """The first time it loads what there is to do so, and later it has it."""
    ended = bash(tmp_path, example("zsh-completion", DIRECTORY=tmp_path))
    assert ended.returncode == 0, ended.stderr
    (tmp_path / "table.csv").touch()
    asked = {"blobfs cp tab": "table.csv", "blobfs stat": "status", "blobfs mount --verify bl": "blocks"}
    lines = [f"ask '{line}' '{answer}'" for line, answer in asked.items()]
    script = f"""
        zmodload zsh/zpty
        zpty shell zsh -f -i
        zpty -w shell 'PS1=REA; PS1+=DY; fpath=({tmp_path} $fpath); autoload -U compinit; compinit -u -D'
        zpty -r shell said '*READY*'
        ask() {{
            zpty -w -n shell "$1"$'\\t'
            zpty -r shell said "*$2*" && echo "$2"
            zpty -w -n shell $'\\x15'
        }}
        {"; ".join(lines * 2)}
        zpty -d shell
    """
    (tmp_path / "script").write_text(script)
    ended = bash(tmp_path, "zsh -f script")
    assert ended.stdout.split() == [*asked.values()] * 2


def test_systemd_understands_the_units(tmp_path: Path) -> None:
    """With a program that exists here in the place of the installed one."""
    for name in ("mnt-results.mount", "blobfs-results.service"):
        (tmp_path / name).write_text(example(name, _usr_local_bin_blobfs=sys.executable))
    ended = bash(tmp_path, f"systemd-analyze verify {tmp_path}/*")
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_alerts_are_about_metrics_that_exist() -> None:
    names = set(re.findall(r"\bblobfs_\w+", example("alerts")))
    assert names <= {f"blobfs_{name}_total" for name in COUNTERS} | {f"blobfs_{name}" for name in GAUGES}
    assert len(names) == example("alerts").count("expr:")


def test_the_line_of_fstab_is_one(tmp_path: Path) -> None:
    fstab = tmp_path / "fstab"
    fstab.write_text(example("fstab"))
    ended = bash(tmp_path, f"findmnt --tab-file {fstab} -rno SOURCE,TARGET,FSTYPE")
    assert ended.stdout == "ACCOUNT/CONTAINER /mnt/results fuse.blobfs\n"


@pytest.mark.parametrize("is_granted", [True, False])
def test_a_container_mounts_with_the_capability_that_its_example_adds(
    mount: Mounts, *, is_granted: bool
) -> None:
    (added,) = re.findall(r"--cap-add (\w+)", ADMIN)
    capabilities = [*OF_CONTAINERS, added.lower()] if is_granted else OF_CONTAINERS
    bounding = ",".join(f"+{name}" for name in capabilities)
    path = mount.new_mountpoint()
    log = path.with_suffix(".log")
    ended = run(
        *("setpriv", f"--bounding-set=-all,{bounding}", "--inh-caps=-all"),
        *(sys.executable, "-m", "blobfs", *mount.arguments(path), "--log-file", log),
    )
    assert (ended.returncode == 0) == is_granted, ended.stderr
    if is_granted:
        mount.adopt(path, log)
        (path / "file").write_text("text")
    else:
        mount.expect_log("libfuse could not mount it")


def test_the_rule_for_udev_raises_the_read_ahead_of_a_mount(mount: Mounts) -> None:
    """Run as udev does, which puts the path of the device in the place of $devpath (udev(7))."""
    number = mount().path.stat().st_dev
    kernel = f"{os.major(number)}:{os.minor(number)}"
    device = Path("/sys/class/bdi", kernel).resolve()
    (pattern,) = re.findall(r'KERNEL=="(.*?)"', UDEV_RULE)
    assert fnmatch(kernel, pattern)
    (device / "read_ahead_kb").write_text("128")
    (command,) = re.findall(r'RUN\+="(.*)"', UDEV_RULE)
    subprocess.run(shlex.split(command.replace("$devpath", str(device).removeprefix("/sys"))), check=True)
    assert (device / "read_ahead_kb").read_text() == f"{READ_AHEAD_KIB}\n"


@pytest.mark.parametrize("fails", [False, True])
def test_a_slurm_job_with_prolog_and_epilog(azurite: Azurite, tmp_path: Path, *, fails: bool) -> None:
    """With an epilog that has something to do when the job dies."""
    box = uuid4().hex
    azurite.create_container(box)
    service = azurite.client()
    blobs: ContainerClient = service.get_container_client(box)
    blobs.upload_blob("input/numbers", b"3\n1\n2\n")
    slurm = {
        "SLURM_JOB_ID": 7,
        "SLURM_JOB_USER": "root",
        "TMPDIR": tmp_path,
        "BLOBFS_ENDPOINT": azurite.endpoint,
    }
    slurm["BLOBFS_LOG_FILE"] = tmp_path / "log"
    words = {"ACCOUNT": azurite.account, "CONTAINER": box, "_run_blobfs": tmp_path / "run"}
    job = example("job", **words)
    if fails:
        job = job.replace("blobfs sync", "kill -9 $$; blobfs sync")

    assert bash(tmp_path, example("prolog", **words), **slurm).returncode == 0
    ended = bash(tmp_path, job, **slurm)
    assert (ended.returncode != 0) == fails, ended.stderr
    mountpoint = tmp_path / "run" / "7" / "data"
    assert is_mountpoint(mountpoint) == fails
    assert bash(tmp_path, example("epilog", **words), **slurm).returncode == 0

    assert not is_mountpoint(mountpoint)
    assert not mountpoint.parent.exists()
    assert blobs.download_blob("sorted").readall() == b"1\n2\n3\n"
    assert (tmp_path / "blobfs-7.json").exists() != fails
    service.close()
