"""Every command of the README, run as it stands there."""

import os
import re
import shlex
import sysconfig
from pathlib import Path

from azurite import Azurite
from mounts import PROJECT, Mounts, bash, shell
from tokens import container_sas

from blobfs.blocks import MAX_BLOCKS_PER_BLOB, block_size_at
from blobfs.cli.config_file import config_values
from blobfs.cli.options import PARAMETERS
from blobfs.copies import session
from blobfs.copying.interruption import Interruption
from blobfs.copying.report import Report, Unwatched
from blobfs.doctor.machine import OLDEST_KERNEL
from blobfs.settings import ContentSettings, CopySettings, ServiceSettings, SessionSettings

README = (PROJECT / "README.md").read_text()
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
BLOCKS = [block for kind, block in BLOCK.findall(README) if kind == "sh"]
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]
(INSTALL,) = (block for block in BLOCKS if "pip install" in block)
# In a line of text; mere names of commands are none.
PROGRAMS = r"(?:blobfs [a-z]+|getfattr|mount|pip install|python|setfattr) |scripts/"
INLINE = re.findall(rf"`((?:{PROGRAMS})[^`]+)`", BLOCK.sub("", README))

# Which test runs them instead, or why none does.
RUNS_THIS = "it runs this test"
FORCED = "test_command_line.py::test_umount_by_force_names_what_it_gives_up"
INSTALLED = "test_readme.py::test_the_installation_gives_the_command"
MEASURED = "test_bench.py::test_chosen_cells_of_the_benchmark_are_measured_and_written_down"
ELSEWHERE = {
    "scripts/demo": "test_readme.py::test_the_demo_copies_compares_and_cleans_up",
    "scripts/demo --keep": "it leaves everything up",
    "scripts/test": RUNS_THIS,
    "scripts/test -k NAME": RUNS_THIS,
    "scripts/lint": RUNS_THIS,
    **dict.fromkeys(INSTALL.splitlines(), INSTALLED),
    "pip install '.[entra]'": INSTALLED,
    "mount -t fuse.blobfs": "test_command_line.py::test_mount8_mounts_a_type_of_fuse_blobfs",
    "blobfs mount --metrics 127.0.0.1:9464": "test_status.py::test_prometheus_gets_the_numbers_of_the_status",
    "blobfs umount --force": FORCED,
    "blobfs umount --force MOUNTPOINT": FORCED,
    "scripts/bench": MEASURED,
    "scripts/bench --only read-sequential --system blobfs --model none --repeats 1": MEASURED,
    "scripts/bench --list": "test_bench.py::test_the_list_names_every_workload",
    "scripts/bench --quick": "it takes minutes",
}


def test_commands_that_are_left_out_are_there_and_have_their_tests() -> None:
    assert set(ELSEWHERE) <= {*COMMANDS, *INLINE}
    for file, test in (place.split("::") for place in ELSEWHERE.values() if "::" in place):
        assert f"def {test}(" in (PROJECT / "tests" / "mount" / file).read_text()


def test_the_commands_of_the_readme_work_in_their_order(
    azurite: Azurite, container: str, mount: Mounts, tmp_path: Path
) -> None:
    """Those in lines of text after those in blocks, but before the mount is taken down.

    The example at the top is complete by itself: it mounts and unmounts.
    """
    (tmp_path / "results" / "deep").mkdir(parents=True)
    (tmp_path / "results" / "deep" / "table.csv").write_text("1,2\n")
    mountpoint = mount.new_mountpoint()
    (tmp_path / "spool").mkdir(mode=0o700)
    (tmp_path / "results.sas").write_text(container_sas(container))
    words = {"ACCOUNT": azurite.account, "CONTAINER": container, "MOUNTPOINT": shlex.quote(str(mountpoint))}
    words["FILE"] = shlex.quote(str(mountpoint / "run-42" / "deep" / "table.csv"))
    words["DIRECTORY"] = shlex.quote(str(mountpoint / "run-42"))
    words["DIR"] = shlex.quote(str(tmp_path / "spool"))
    settings = {"BLOBFS_ENDPOINT": azurite.endpoint, "BLOBFS_LOG_FILE": str(tmp_path / "log")}
    commands = [command for command in COMMANDS if command not in ELSEWHERE]
    last = "blobfs umount MOUNTPOINT"
    example = commands[: commands.index(last) + 1]
    rest = commands[len(example) :]
    rest.remove(last)
    commands = example + rest
    commands += ["cp -r results MOUNTPOINT"]
    commands += [command for command in INLINE if command not in ELSEWHERE and command not in COMMANDS]

    for command in [*commands, last]:
        shell(tmp_path, re.sub("|".join(words), lambda word: words[word.group()], command), **settings)

    assert (tmp_path / "copy" / "deep" / "table.csv").read_text() == "1,2\n"
    assert not os.path.ismount(mountpoint)


def test_the_demo_copies_compares_and_cleans_up(tmp_path: Path) -> None:
    said = shell(PROJECT, "scripts/demo", TMPDIR=tmp_path)
    assert "files are the same, byte for byte" in said
    assert list(tmp_path.iterdir()) == []


def test_the_installation_gives_the_command(tmp_path: Path) -> None:
    """Without dependencies: the environment that runs this has them."""
    options = {"PIP_QUIET": 1, "PIP_DISABLE_PIP_VERSION_CHECK": 1, "PIP_NO_DEPS": 1}
    dependencies = shlex.quote(sysconfig.get_path("purelib"))
    look = f"cd ~ && PYTHONPATH={dependencies} blobfs --version && command -v blobfs"
    ended = bash(PROJECT, f"{INSTALL}pip install '.[entra]' && {look}", HOME=tmp_path, **options)
    assert ended.returncode == 0, ended.stderr
    assert "does not provide the extra" not in ended.stderr
    version, place = ended.stdout.splitlines()
    assert version.startswith("blobfs, version ")
    assert place == f"{tmp_path}/.blobfs/bin/blobfs"


def test_the_oldest_kernel_is_the_one_that_doctor_demands() -> None:
    assert f"Linux {'.'.join(map(str, OLDEST_KERNEL))} or later" in README


def test_the_largest_file_is_as_large_as_is_said() -> None:
    service = ServiceSettings("devstoreaccount1", "results")
    settings = SessionSettings(service, ContentSettings(), CopySettings())
    with session(settings, Report(Unwatched()), Interruption()) as opened:
        first_bytes, largest_bytes = opened.content.block_bytes, opened.content.largest_block_bytes
    blocks = range(MAX_BLOCKS_PER_BLOB)
    largest_file_bytes = sum(block_size_at(index, first_bytes, largest_bytes) for index in blocks)
    assert f"at most {MAX_BLOCKS_PER_BLOB:,} blocks" in README
    assert f"with the default `--memory` some {largest_file_bytes >> 40} TiB" in README


def test_the_configuration_of_the_readme_is_valid(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    file = tmp_path / "blobfs.toml"
    file.write_text(example)
    assert config_values(file, PARAMETERS) == {"memory": "1GiB", "sas_file": "/home/ada/.secrets/results.sas"}
