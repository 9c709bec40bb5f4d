"""The command line up to the point where a mount is made."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from blobfs.blocks import KiB, MiB
from blobfs.cli.control import read_status
from blobfs.cli.helper import mount_arguments
from blobfs.cli.main import blobfs
from blobfs.cli.mount import mount, settings_of
from blobfs.cli.umount import users_of
from blobfs.cli.values import octal, size_between, spell_size
from blobfs.settings import CredentialSettings, MountSettings

size = size_between(0, 1024**5)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory of the test's own, and none of the caller's options."""
    for name in [name for name in os.environ if name.startswith("BLOBFS_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home


def settings(*options: str) -> MountSettings:
    return parsed(*options, "account", "container", "/mnt")


def parsed(*arguments: str) -> MountSettings:
    return settings_of(mount.make_context("mount", list(arguments)))


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(blobfs, [str(argument) for argument in arguments])


def written(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# Values


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("4096", 4096),
        ("4096B", 4096),
        ("8MiB", 8 * MiB),
        ("8M", 8 * MiB),
        ("8 mib", 8 * MiB),
        ("8MB", 8_000_000),
        ("1G", 1024 * MiB),
        (512 * KiB, 512 * KiB),
    ],
)
def test_sizes_are_read_with_their_units(text: object, size_bytes: int) -> None:
    assert size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1.5GiB", "8XB", "8 M iB", "eight", True, [8]])
def test_what_is_not_a_size_is_refused_with_an_example(text: object) -> None:
    with pytest.raises(click.BadParameter, match="Write 8MiB"):
        size(text)


def test_a_size_out_of_range_is_refused_with_the_range() -> None:
    with pytest.raises(click.BadParameter, match="'1K' is not between 64KiB and 1MiB"):
        size_between(64 * KiB, MiB)("1K")


@given(st.integers(0, 1024**5))
def test_a_size_reads_back_as_it_was_spelled(size_bytes: int) -> None:
    assert size(spell_size(size_bytes)) == size_bytes


@pytest.mark.parametrize(("value", "mode"), [("022", 0o022), ("0o27", 0o027), (0o077, 0o077)])
def test_octal_values_are_text_or_a_number(value: object, mode: int) -> None:
    assert octal(value) == mode


@pytest.mark.parametrize("value", ["8", "1000", "rwx", -1, 0o1000])
def test_other_modes_are_refused(value: object) -> None:
    with pytest.raises(click.BadParameter):
        octal(value)


# Where options come from


def test_without_options_the_settings_have_their_own_defaults() -> None:
    assert settings() == MountSettings("account", "container", Path("/mnt"))


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = written(
        tmp_path / "config.toml", 'memory = "1GiB"\nblock-size = "1MiB"\numask = 0o077\nread_only = true'
    )
    monkeypatch.setenv("BLOBFS_MEMORY", "2GiB")
    monkeypatch.setenv("BLOBFS_BLOCK_SIZE", "2MiB")

    result = settings("--config", str(config), "--block-size=4MiB")

    assert result.block_size_bytes == 4 * MiB
    assert result.memory_bytes == 2048 * MiB
    assert result.umask == 0o077
    assert result.read_only


def test_a_flag_of_the_file_can_be_taken_back(tmp_path: Path) -> None:
    config = written(tmp_path / "config.toml", "read_only = true")
    assert not settings(f"--config={config}", "--read-write").read_only


def test_the_file_in_the_home_directory_is_read_unasked(home: Path) -> None:
    written(home / ".config/blobfs.toml", 'prefix = "below"')
    assert settings().prefix == "below"


def test_arguments_may_stand_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCOUNT", "CONTAINER", "MOUNTPOINT"):
        monkeypatch.setenv(f"BLOBFS_{name}", f"/{name}")
    assert parsed() == MountSettings("/ACCOUNT", "/CONTAINER", Path("/MOUNTPOINT"))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("memmory = 1", "unknown key 'memmory'"),
        ("memory = ", "Invalid value"),
        ("config = 'x'", "unknown key"),
    ],
)
def test_an_error_in_the_file_names_the_file(tmp_path: Path, text: str, complaint: str) -> None:
    config = written(tmp_path / "config.toml", text)
    with pytest.raises(click.BadParameter, match=complaint) as caught:
        settings(f"--config={config}")
    assert str(config) in caught.value.message


# Mount lists


def test_a_mount_list_stands_for_long_options() -> None:
    result = settings("-o", r"ro,uid=5,allow_other,attr_timeout=0,memory=1GiB,prefix=a\,b", "-oblock-size=1M")
    assert result == MountSettings(
        "account",
        "container",
        Path("/mnt"),
        read_only=True,
        uid=5,
        allow_other=True,
        attr_timeout_seconds=0,
        memory_bytes=1024 * MiB,
        block_size_bytes=MiB,
        prefix="a,b",
    )


def test_long_options_win_over_a_mount_list() -> None:
    assert settings("--uid=7", "-o", "uid=5").uid == 7


def test_what_a_mount_list_says_to_others_is_ignored() -> None:
    others = "rw,defaults,_netdev,nofail,noauto,user,x-systemd.automount,comment=x,relatime,nodiratime,,async"
    assert settings("-o", others) == settings()


def test_what_a_mount_list_says_to_the_kernel_is_kept_in_order() -> None:
    assert settings("-o", "noexec,uid=1,nodev,suid").kernel_options == ("noexec", "nodev", "suid")


@pytest.mark.parametrize(
    ("mount_list", "complaint"),
    [
        ("colour=red", "Unknown mount option 'colour'"),
        ("help", "Unknown mount option 'help'"),
        ("uid,ro", "'uid' needs a value"),
        ("allow_other=1", "'--allow-other' does not take a value"),
        ("uid=x", "'--uid'"),
    ],
)
def test_an_error_in_a_mount_list_is_named(mount_list: str, complaint: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        settings("-o", mount_list)
    assert complaint in caught.value.format_message()


def test_the_spec_of_mount8_names_account_container_and_prefix() -> None:
    arguments = mount_arguments("account/container/a/b", "/mnt", ["rw,uid=5"])
    assert parsed(*arguments) == MountSettings("account", "container", Path("/mnt"), prefix="a/b", uid=5)


def test_mount8_may_ask_for_everything_but_the_mount(tmp_path: Path) -> None:
    assert run("account/container", tmp_path, "-sfnv", "-o", "rw,uid=5", "-t", "fuse.blobfs").exit_code == 0
    assert run("account/container", tmp_path, "-f", "-o", "colour=red").exit_code == 2


# Contradictions


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--read-only", "--create-container"], "contradict"),
        (["--memory=16MiB"], "--block-size is over a quarter of --memory: at most 4MiB fit"),
        (["--log-file=/mnt/log"], "--log-file /mnt/log lies inside the mountpoint"),
        (["--auth=entra", "--sas-file=FILE"], "--sas-file and --auth contradict each other"),
        (["--account-key-file=FILE", "--sas-file=FILE"], "--account-key-file and --sas-file contradict"),
    ],
)
def test_options_that_cannot_both_be_meant_are_refused(
    tmp_path: Path, arguments: list[str], complaint: str
) -> None:
    file = written(tmp_path / "secret")
    with pytest.raises(click.UsageError, match=complaint):
        settings(*(argument.replace("FILE", str(file)) for argument in arguments))


def test_a_credential_on_the_command_line_hides_another_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path / "secret")
    monkeypatch.setenv("BLOBFS_ACCOUNT_KEY_FILE", str(file))
    assert settings().credential == CredentialSettings(account_key_file=file)
    assert settings("--auth=entra").credential == CredentialSettings(auth="entra")


def test_paths_are_absolute_and_keep_their_links(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = home / "link"
    link.symlink_to(written(home / "secret"))
    monkeypatch.chdir(home)
    result = settings("--sas-file=link", "--ca-file=~/secret")
    assert (result.credential.sas_file, result.ca_file) == (link, home / "secret")


# Exit codes and messages


def test_wrong_usage_exits_with_2() -> None:
    assert run("mount", "account", "container").exit_code == 2
    assert run("mount", "account", "container", "/mnt", "--colour=red").exit_code == 2
    assert run("mount", "account", "container", "/mnt", "--sas-file=/no/such/file").exit_code == 2


def test_a_missing_mountpoint_is_one_line_with_its_cure(tmp_path: Path) -> None:
    result = run("mount", "account", "container", tmp_path / "missing")
    assert (result.exit_code, result.stderr) == (
        1,
        f"blobfs: {tmp_path}/missing does not exist. Create it with mkdir.\n",
    )


def test_a_file_is_no_mountpoint(tmp_path: Path) -> None:
    result = run("mount", "account", "container", written(tmp_path / "file"))
    assert (result.exit_code, result.stderr) == (1, f"blobfs: {tmp_path}/file is not a directory.\n")


def test_umount_refuses_what_is_not_ours(tmp_path: Path) -> None:
    result = run("umount", tmp_path)
    assert (result.exit_code, result.stderr) == (1, f"blobfs: {tmp_path} is not mounted by blobfs.\n")
    result = run("umount", tmp_path / "missing")
    assert (result.exit_code, result.stderr) == (
        1,
        f"blobfs: {tmp_path}/missing: No such file or directory\n",
    )


def test_a_plain_directory_has_no_mount_status(tmp_path: Path) -> None:
    assert read_status(tmp_path) is None


def test_users_of_a_directory_are_named_with_their_process(tmp_path: Path) -> None:
    assert list(users_of(tmp_path)) == []
    with (tmp_path / "open").open("w"):
        (user,) = users_of(tmp_path)
    assert user.endswith(f"({os.getpid()})")


# Into the background


def detached(script: str, *arguments: str | Path, close_fds: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a script that calls `detach` first; returns once nobody writes to its outputs any more."""
    source = f"import os, sys\nfrom blobfs.cli.daemon import detach\nready = detach()\n{script}"
    command = [sys.executable, "-c", source, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, close_fds=close_fds)


def test_the_command_ends_with_the_message_while_the_process_serves_on(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    ended = detached(
        "ready('mounted'); open(sys.argv[1], 'w').write(f'{os.getsid(0) == os.getpid()} {os.getcwd()}')", fifo
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "mounted\n", "")
    assert fifo.read_text() == "True /"


def test_the_background_process_lets_go_of_inherited_files(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    detached("ready('mounted'); open(sys.argv[1], 'w').write('done')", fifo, close_fds=False)
    os.close(writer)
    # The end of file comes although the process still waits for us at the fifo.
    with open(reader, "rb") as pipe:
        assert pipe.read() == b""
    assert fifo.read_text() == "done"


def test_the_command_exits_like_a_process_that_never_served() -> None:
    ended = detached("sys.exit('no such container')")
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", "no such container\n")


def test_a_process_that_was_killed_before_it_served_is_a_failure() -> None:
    ended = detached("os.kill(os.getpid(), 9)")
    assert ended.returncode == 1
    assert "ended by SIGKILL before the mount answered" in ended.stderr
