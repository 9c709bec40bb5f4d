"""Every command of the README, run as it stands there."""

import os
import re
import shlex
import sys
from pathlib import Path

from azurite import Azurite
from mounts import PROJECT, Mounts, shell

from blobfs.cli.options import config_values

README = (PROJECT / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]

# These have tests of their own, or are what runs this one.
ELSEWHERE = ["scripts/demo", "scripts/test", "pip install ."]


def test_the_commands_of_the_readme_work_in_their_order(
    azurite: Azurite, container: str, mount: Mounts, tmp_path: Path
) -> None:
    (tmp_path / "results" / "deep").mkdir(parents=True)
    (tmp_path / "results" / "deep" / "table.csv").write_text("1,2\n")
    mountpoint = mount.new_mountpoint()
    (tmp_path / "spool").mkdir(mode=0o700)
    words = {"ACCOUNT": azurite.account, "CONTAINER": container, "MOUNTPOINT": shlex.quote(str(mountpoint))}
    words["DIR"] = shlex.quote(str(tmp_path / "spool"))
    settings = {"BLOBFS_ENDPOINT": azurite.endpoint, "BLOBFS_LOG_FILE": str(tmp_path / "log")}
    commands = [command for command in COMMANDS if command not in ELSEWHERE]
    assert commands[1] == "blobfs umount MOUNTPOINT"
    last = commands.pop(1)

    for command in [*commands, last]:
        shell(tmp_path, re.sub("|".join(words), lambda word: words[word.group()], command), **settings)

    assert (tmp_path / "copy" / "deep" / "table.csv").read_text() == "1,2\n"
    assert not os.path.ismount(mountpoint)


def test_the_demo_copies_compares_and_cleans_up(tmp_path: Path) -> None:
    said = shell(PROJECT, "scripts/demo", TMPDIR=tmp_path)
    assert "files are the same, byte for byte" in said
    assert list(tmp_path.iterdir()) == []


def test_pip_install_gives_the_command(tmp_path: Path) -> None:
    """Without dependencies: the environment that runs this has them."""
    options = f"--quiet --disable-pip-version-check --no-deps --target {shlex.quote(str(tmp_path / 'site'))}"
    shell(PROJECT, f"{shlex.quote(sys.executable)} -m pip install {options} .")
    said = shell(tmp_path, "site/bin/blobfs --version", PYTHONPATH=tmp_path / "site")
    assert said.startswith("blobfs, version ")


def test_the_configuration_of_the_readme_is_valid(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    file = tmp_path / "blobfs.toml"
    file.write_text(example)
    assert config_values(file) == {"memory": "1GiB", "sas_file": "/home/ada/.secrets/results.sas"}
