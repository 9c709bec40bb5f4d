"""Every command of docs/from-blobxfer.md, run as it stands there, and every option that it must know."""

import re
import shlex
from pathlib import Path

import pytest
from azurite import Azurite
from mounts import PROJECT, Mounts, run, shell
from tokens import container_sas

TEXT = (PROJECT / "docs" / "from-blobxfer.md").read_text()
NOT_RUN = "†"  # what an emulator cannot answer
PROGRAMS = r"\(cd |HTTPS_PROXY=|(?:blobfs|cp|curl|find|gzip|openssl|rsync|setfattr) "
# In a line of text or in a block; mere names of commands are none.
COMMAND = re.compile(rf"`((?:{PROGRAMS})[^`]+)`( {NOT_RUN})?|^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
NAMES = {"blobfs cp", "blobfs verify"}


def commands() -> tuple[list[str], list[str]]:
    """Return the commands to be run, each once and in their order, and those that are not."""
    to_run: dict[str, None] = {}
    left_out = []
    for inline, mark, block in COMMAND.findall(TEXT):
        if mark:
            left_out.append(inline)
        else:
            lines = [inline.replace(r"\|", "|")] if inline else block.splitlines()
            to_run.update(dict.fromkeys(line for line in lines if line not in NAMES))
    return list(to_run), left_out


def make_results(directory: Path) -> None:
    """Make what the commands copy."""
    (directory / "results" / "deep").mkdir(parents=True)
    for name in ("table.csv", "deep/part-1", "deep/more.csv", "deep/old.tmp"):
        (directory / "results" / name).write_text(f"{name},1\n")
    (directory / "results" / "latest").symlink_to("table.csv")


def make_secrets(directory: Path, azurite: Azurite, container: str) -> None:
    """Make the files that hold credentials."""
    token = container_sas(container)
    for name, secret in (("key.txt", azurite.key), ("sas.txt", token)):
        (directory / name).write_text(secret)
        (directory / name).chmod(0o600)


def test_the_commands_work_in_their_order(
    azurite: Azurite, container: str, mount: Mounts, tmp_path: Path
) -> None:
    make_results(tmp_path)
    make_secrets(tmp_path, azurite, container)
    words = {
        "ACCOUNT": azurite.account,
        "NEW-CONTAINER": f"new-{container}",
        "CONTAINER": container,
        "NEW-MOUNTPOINT": shlex.quote(str(mount.new_mountpoint())),
        "MOUNTPOINT": shlex.quote(str(mount.new_mountpoint())),
        "ENDPOINT": azurite.endpoint,
    }
    settings = {"BLOBFS_ENDPOINT": azurite.endpoint, "BLOBFS_LOG_FILE": str(tmp_path / "log")}

    for command in commands()[0]:
        script = re.sub("|".join(words), lambda word: words[word.group()], command)
        shell(tmp_path, f"set -o pipefail\n{script}", **settings)

    original = (tmp_path / "results" / "table.csv").read_text()
    for name in ("table.csv", "fetched/table.csv", "copy/table.csv", "table.plain", "unpacked.csv"):
        assert (tmp_path / name).read_text() == original
    with azurite.client() as client:
        blobs = {blob.name for blob in client.get_container_client(container).list_blobs()}
    assert {"flat/part-1", "top/table.csv", "part/deep/part-1", "recent/deep/part-1"} <= blobs
    assert not {"top/deep/part-1", "part/table.csv", "both/deep/old.tmp", "matching/table.csv"} & blobs


def test_few_commands_are_left_out() -> None:
    to_run, left_out = commands()
    assert len(to_run) > 35
    assert len(left_out) == TEXT.count(f"` {NOT_RUN}") == 3


@pytest.mark.parametrize("command", ["copy", "sync"])
def test_every_option_of_azcopy_is_in_its_table(command: str) -> None:
    said = run("azcopy", command, "--help").stdout.partition("Flags:")[2]
    options = set(re.findall(r"^ +(?:-\w, )?(--[a-z0-9-]+)", said, re.MULTILINE)) - {"--help"}
    assert len(options) > 30
    known = TEXT.partition("## AzCopy: copy")[2]
    assert {option for option in options if not re.search(rf"{option}(?![\w-])", known)} == set()
