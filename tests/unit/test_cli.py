"""The command line up to the point where a mount is made."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from blobfs.blocks import KiB, MiB
from blobfs.cli.config_file import config_values
from blobfs.cli.control import MountStatus, UncommittedFile, read_status
from blobfs.cli.helper import mount_arguments
from blobfs.cli.main import blobfs
from blobfs.cli.messages import printable, shown, without_secrets
from blobfs.cli.mount import mount, settings_of
from blobfs.cli.mountpoint import FILESYSTEM, claimed, real_path, release
from blobfs.cli.options import PARAMETERS
from blobfs.cli.umount import users_of
from blobfs.cli.values import (
    local_address,
    octal,
    scheduler_address,
    size_between,
    spell_address,
    spell_size,
)
from blobfs.filesystem.commits import Uncommitted
from blobfs.settings import ContentSettings, CredentialSettings, MountSettings, ServiceSettings
from blobfs.status import _uncommitted

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


# Output


def test_a_name_that_is_no_text_is_shown_with_escapes(tmp_path: Path) -> None:
    """With an encoding that takes nothing else, as the usual one does."""
    ended = subprocess.run(
        [sys.executable, "-m", "blobfs", "config", "show", "--log-file", os.fsencode(tmp_path) + b"/\xff"],
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict", "AZURE_STORAGE_KEY": "c2VjcmV0"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert f'log-file = "{tmp_path}/\\udcff"' in ended.stdout


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


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("localhost:9464", ("127.0.0.1", 9464)),
        ("[::1]:1", ("::1", 1)),
        ("unix:/run/blobfs.sock", Path("/run/blobfs.sock")),
    ],
)
def test_addresses_of_this_machine_are_read(text: str, address: tuple[str, int] | Path) -> None:
    assert local_address(text) == address
    assert local_address(spell_address(address)) == address


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0.0.0.0:9464", "can be reached by other machines"),
        ("[::]:9464", "can be reached by other machines"),
        ("192.168.1.1:9464", "can be reached by other machines"),
        ("node7:9464", "is no address"),
        ("9464", "is no address"),
        ("", "is no address"),
        ("127.0.0.1:", "is not a port"),
        ("127.0.0.1:65536", "is not a port"),
        ("127.0.0.1:0", "is not a port"),
        ("unix:", "give a path"),
    ],
)
def test_other_addresses_are_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(click.BadParameter, match=reason):
        local_address(text)


@pytest.mark.parametrize("text", ["local", "tcp://node-1:8786", "tls://[::1]:8786", "127.0.0.1:8786"])
def test_addresses_of_schedulers_are_read(text: str) -> None:
    assert scheduler_address(text) == text


@pytest.mark.parametrize("text", ["", "node-1", "tcp://node-1", "tcp://node-1:x", "http://a:1", "a:65536"])
def test_what_is_no_scheduler_is_refused_with_the_form_of_one(text: str) -> None:
    result = run("cp", "-r", "here", "account/container", "--scheduler", text)
    assert result.exit_code == 2
    assert f"{text!r} is no address. Write tcp://HOST:PORT, tls://HOST:PORT or local." in result.stderr


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
    assert settings() == MountSettings(ServiceSettings("account", "container"), Path("/mnt"))


def test_blocks_are_as_large_as_memory_has_room_for_unless_their_size_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert settings("--memory=17MB").content.block_size_bytes == 4 * MiB
    assert settings("--memory=1GiB").content.block_size_bytes == 8 * MiB
    assert settings("--block-size=1MiB", "--memory=16MiB").content.block_size_bytes == 1 * MiB
    monkeypatch.setenv("BLOBFS_MEMORY", "16MiB")
    assert settings().content.block_size_bytes == 4 * MiB


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = written(
        tmp_path / "config.toml", 'memory = "1GiB"\nblock-size = "1MiB"\numask = 0o077\nread_only = true'
    )
    monkeypatch.setenv("BLOBFS_MEMORY", "2GiB")
    monkeypatch.setenv("BLOBFS_BLOCK_SIZE", "2MiB")

    result = settings("--config", str(config), "--block-size=4MiB")

    assert result.content.block_size_bytes == 4 * MiB
    assert result.content.memory_bytes == 2048 * MiB
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
    assert parsed() == MountSettings(ServiceSettings("/ACCOUNT", "/CONTAINER"), Path("/MOUNTPOINT"))


def test_no_variable_turns_a_listing_of_what_is_left_into_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for action in ("COMMIT", "SAVE_TO", "DISCARD"):
        monkeypatch.setenv(f"BLOBFS_{action}", "1")
    result = run("recover", "account", "container", "--spool-dir", tmp_path)
    assert (result.exit_code, result.stdout) == (0, "Nothing is left.\n")


@pytest.mark.parametrize("names", [("ACCOUNT", "container"), ("account", "Container")])
def test_names_that_cannot_be_are_not_said_to_have_nothing_left(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    result = run("recover", *names, "--spool-dir", tmp_path)
    assert (result.exit_code, "name: 3 to" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("memmory = 1", "unknown key 'memmory'; did you mean 'memory'?"),
        ("my-account-key = 'x'", "unknown key 'my-account-key'"),
        ("[mount]\nmemory = '1GiB'", "unknown table 'mount'"),
        ("memory = ", "Invalid value"),
        ("config = 'x'", "unknown key"),
    ],
)
def test_an_error_in_the_file_names_the_file(tmp_path: Path, text: str, complaint: str) -> None:
    config = written(tmp_path / "config.toml", text)
    with pytest.raises(click.BadParameter, match=complaint) as caught:
        settings(f"--config={config}")
    assert str(config) in caught.value.message


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('sas-file = ["a"]', "sas-file must be text in quotes, not a list"),
        ("mountpoint = 5", "mountpoint must be text in quotes, not a number"),
        ("account = 2026-11-22", "account must be text in quotes, not a date or time"),
        ("[prefix]", "prefix must be text in quotes, not a table"),
        ("log-file = true", "log-file must be text in quotes, not true or false"),
        ("auth = 1.5", "auth must be text in quotes, not a number"),
        ("uid = true", "uid must be a whole number, not true or false"),
        ('gid = "5"', "gid must be a whole number, not text"),
        ("attr-timeout = []", "attr-timeout must be a number of seconds, not a list"),
        ("memory = 1.5", 'memory must be a size such as "1GiB", not a number'),
        ("umask = false", "umask must be octal digits"),
        ('read-only = "yes"', "read-only must be true or false, not text"),
        ("foreground = 1", "foreground must be true or false, not a number"),
    ],
)
def test_a_value_of_the_wrong_kind_in_the_file_is_named_with_what_is_expected(
    tmp_path: Path, text: str, complaint: str
) -> None:
    config = written(tmp_path / "config.toml", text)
    result = run("mount", "account", "container", tmp_path, f"--config={config}")
    assert result.exit_code == 2
    assert f"{config}: {complaint}" in result.stderr
    assert result.stderr.count("\n") == 1


def test_every_option_of_the_file_refuses_a_list_and_a_table(tmp_path: Path) -> None:
    for param in PARAMETERS:
        if param.name in ("config", "mount_lists", "kernel_options"):
            continue
        for value in ("[1]", "{ a = 1 }", "1979-05-27T07:32:00Z"):
            config = written(tmp_path / "config.toml", f"{param.name} = {value}")
            with pytest.raises(ValueError, match=f"{param.name} must be"):
                config_values(config, PARAMETERS)


@pytest.mark.parametrize(
    "command",
    [
        ("mount", "account", "container", "here"),
        ("config", "show"),
        ("cp", "file", "account/container"),
        ("verify", "account/container"),
        ("doctor", "account", "container"),
        ("recover", "account", "container"),
    ],
)
def test_a_bad_value_is_named_with_the_file_or_the_variable_it_is_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Sequence[str]
) -> None:
    config = written(tmp_path / "config.toml", 'memory = "much"')
    assert f"{config}: Invalid value for '--memory'" in run(*command, f"--config={config}").stderr
    monkeypatch.setenv("BLOBFS_MEMORY", "more")
    assert "BLOBFS_MEMORY: Invalid value" in run(*command).stderr


def test_a_file_that_is_no_text_is_told_so(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_bytes(b"\xff")
    said = run("config", "show", f"--config={config}").stderr
    assert f"{config}: is not text in UTF-8; save it as that. See" in said


def test_a_switch_in_the_environment_is_told_its_two_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOBFS_READ_ONLY", "maybe")
    assert run("config", "show").stderr == (
        "blobfs: BLOBFS_READ_ONLY: Invalid value for '--read-only': 'maybe' is not a valid boolean. "
        "Write true or false. See blobfs config show --help.\n"
    )


def test_a_byte_order_mark_before_the_file_does_not_matter(tmp_path: Path) -> None:
    assert settings(f"--config={written(tmp_path / 'config.toml', chr(0xFEFF) + 'uid = 5')}").uid == 5


# Mount lists


def test_a_mount_list_stands_for_long_options() -> None:
    result = settings("-o", r"ro,uid=5,allow_other,attr_timeout=0,memory=1GiB,prefix=a\,b", "-oblock-size=1M")
    assert result == MountSettings(
        ServiceSettings("account", "container"),
        Path("/mnt"),
        ContentSettings(memory_bytes=1024 * MiB, block_size_bytes=MiB),
        read_only=True,
        uid=5,
        allow_other=True,
        attr_timeout_seconds=0,
        prefix="a,b",
    )


def test_a_mount_list_turns_off_what_is_on() -> None:
    assert settings().close_to_open
    assert not settings("-o", "no_close_to_open,attr_timeout=300").close_to_open


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
        ("uid=x", "'--uid': 'x' is not a valid number"),
        ("ro,rw", "ro and rw after -o contradict each other"),
    ],
)
def test_an_error_in_a_mount_list_is_named(mount_list: str, complaint: str) -> None:
    for command, arguments in ("mount", ["account", "container", "/mnt"]), ("config show", []):
        result = run(*command.split(), *arguments, "-o", mount_list)
        assert result.exit_code == 2
        assert complaint in result.stderr
        assert f". See blobfs {command} --help." in result.stderr


def test_the_spec_of_mount8_names_account_container_and_prefix() -> None:
    arguments = mount_arguments("account/container/a/b", "/mnt", ["rw,uid=5"])
    assert parsed(*arguments) == MountSettings(
        ServiceSettings("account", "container"), Path("/mnt"), prefix="a/b", uid=5
    )


def test_a_mistake_in_the_form_of_mount8_is_sent_to_the_help_of_mount(tmp_path: Path) -> None:
    for arguments in (["account/container"], ["account/container", str(tmp_path), "--nosuch"]):
        result = CliRunner().invoke(blobfs, arguments)
        assert result.exit_code == 2
        assert "See blobfs mount --help" in result.stderr


def test_mount8_may_ask_for_everything_but_the_mount(tmp_path: Path) -> None:
    assert run("account/container", tmp_path, "-sfnv", "-o", "rw,uid=5", "-t", "fuse.blobfs").exit_code == 0
    assert run("account/container", tmp_path, "-f", "-o", "colour=red").exit_code == 2


# Contradictions


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--read-only", "--create-container"], "contradict"),
        (["--exclusive-create", "--no-close-to-open"], "--exclusive-create is for other nodes"),
        (["--writeback"], "--writeback keeps in a spool what is to be sent: name one with --spool-dir"),
        (
            ["--memory=16MiB", "--block-size=5M"],
            "--block-size is over a quarter of --memory: at most 4MiB fit",
        ),
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
    assert settings().service.credential == CredentialSettings(account_key_file=file)
    assert settings("--auth=entra").service.credential == CredentialSettings(auth="entra")


def test_paths_are_absolute_and_keep_their_links(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = home / "link"
    link.symlink_to(written(home / "secret"))
    monkeypatch.chdir(home)
    result = settings("--sas-file=link", "--log-file=~/log")
    assert (result.service.credential.sas_file, result.log_file) == (link, home / "log")


# Values that cannot be meant


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("--attr-timeout=nan", "'nan' is not between 0 and"),
        ("--attr-timeout=inf", "'inf' is not between 0 and"),
        ("--attr-timeout=1e300", "'1e300' is not between 0 and"),
        ("--attr-timeout=-1", "'-1' is not between 0 and"),
        ("--attr-timeout=soon", "'soon' is not a number of seconds"),
        ("--timeout=nan", "'nan' is not between 0.1 and"),
        ("--timeout=0", "'0' is not between 0.1 and"),
        ("--uid=-1", "-1 is not in the range 0<=x<=4294967294"),
        ("--uid=4294967295", "4294967295 is not in the range"),
        ("--gid=4294967295", "4294967295 is not in the range"),
        ("--memory=" + "9" * 5000, "is not a size"),
        ("--sas-file=", "is empty; give a path"),
        ("--sas-file=/", "/ is not a regular file"),
        ("--sas-file=/no/such/file", "/no/such/file does not exist"),
        ("--sas-file=/" + "x" * 5000, "cannot be read: File name too long"),
        ("--ca-file=RUBBISH", "RUBBISH holds no certificate in PEM"),
        ("--ca-file=EMPTY", "EMPTY holds no certificate in PEM"),
        ("--config=BINARY", "BINARY: "),
    ],
)
def test_values_out_of_reason_are_refused(tmp_path: Path, option: str, complaint: str) -> None:
    written(tmp_path / "RUBBISH", "rubbish")
    written(tmp_path / "EMPTY")
    (tmp_path / "BINARY").write_bytes(b"\xff\xfe\x00")
    for name in ("RUBBISH", "EMPTY", "BINARY"):
        option = option.replace(name, str(tmp_path / name))
    result = run("mount", "account", "container", tmp_path, option)
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("secret", ["sv=2022-11-02&sig=SECRET", "AccountKey=SECRET;", "SECRET" * 14 + "AB=="])
def test_a_secret_in_place_of_its_file_is_not_shown(tmp_path: Path, secret: str) -> None:
    for option in ("--sas-file", "--account-key-file", "--connection-string-file"):
        result = run("mount", "account", "container", tmp_path, option, secret)
        assert result.exit_code == 2
        assert "write it into a file" in result.stderr
        assert "SECRET" not in result.output


KEY = "SECRET" * 14 + "AB=="


@pytest.mark.parametrize(
    "arguments",
    [
        ["mount", "https://acc.blob.core.windows.net/con?sv=1&sig=SECRET", "con", "DIR"],
        ["mount", "https://user:SECRET@acc.blob.core.windows.net", "con", "DIR"],
        ["mount", "AccountName=acc;AccountKey=SECRET", "con", "DIR"],
        ["mount", KEY, "con", "DIR"],
        ["mount", "account", "con?sig=SECRET", "DIR"],
        ["mount", "account", "con", "DIR", "sv=1&sig=SECRET"],
        ["mount", "account", "con", "DIR", "--auth", "sv=1&sig=SECRET"],
        ["mount", "account", "con", "DIR", "--prefix", "x?sv=1&sig=SECRET"],
        ["account/con?sv=1&sig=SECRET", "DIR"],
        ["cp", "DIR", "account/con/x?sv=1&sig=SECRET"],
        ["cp", "DIR", "https://user:SECRET@acc.blob.core.windows.net/con/x"],
        ["cp", "DIR", "https://acc.blob.core.windows.net/con/x#sig=SECRET"],
        ["cp", "DIR", "SharedAccessSignature=SECRET"],
        ["verify", "account/con?sig=SECRET"],
        ["umount", "sv=1&sig=SECRET"],
        ["sig=SECRET"],
    ],
)
def test_a_secret_in_a_wrong_place_is_refused_and_not_shown(tmp_path: Path, arguments: list[str]) -> None:
    result = run(*(argument.replace("DIR", str(tmp_path)) for argument in arguments))
    assert result.exit_code == (1 if arguments[0] == "umount" else 2)
    assert result.stderr.startswith("blobfs: ")
    assert "SECRET" not in result.output


def test_a_message_keeps_what_only_resembles_a_secret() -> None:
    for text in (
        "runs/sig=0.5/x.nc",
        "con/fit(sig=0.05).csv",
        "con/plot sig=2.png",
        "sigma=1&design=2",
        "a@b",
        "https://host/a@b",
        "x" * 86,
    ):
        assert without_secrets(text) == text


def test_a_terminal_gets_no_control_characters_of_a_name(tmp_path: Path) -> None:
    result = run("umount", tmp_path / "a\x1b[2Jb\x9b\u202ec\udcff")
    assert f"{tmp_path}/a\\x1b[2Jb\\x9b\\u202ec\\udcff does not exist" in result.stderr
    assert shown("Two\nlines of 1 µs") == "Two\nlines of 1 µs"
    assert printable("a\nb") == "a\\nb"


def test_settings_are_shown_without_a_secret_among_them() -> None:
    result = run("config", "show", "--endpoint", "https://user:SECRET@host?sig=SECRET")
    assert (result.exit_code, "https://…@host?sig=…" in result.stdout) == (0, True)


@pytest.mark.parametrize("path", ["/", "/proc", "/sys/fs", "/dev", "/dev/shm/x", "/etc/../proc/self"])
def test_directories_of_the_system_are_no_mountpoints(path: str) -> None:
    result = run("mount", "account", "container", path)
    assert result.exit_code == 2
    assert "belongs to the system" in result.stderr


def test_no_mountpoint_may_hold_the_log(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blobfs.cli.logs.SYSLOG_SOCKET", tmp_path / "no-syslog")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    result = run("mount", "account", "container", home)
    assert result.exit_code == 2
    assert "lies inside the mountpoint" in result.stderr
    link = tmp_path / "link"
    link.symlink_to(home)
    result = run("mount", "account", "container", home, f"--log-file={link}/log")
    assert "--log-file" in result.stderr
    assert "lies inside the mountpoint" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["", "container"], "'' is no account name"),
        (["a/b", "container"], "'a/b' is no account name"),
        (["account", ""], "'' is no container name"),
        (["account", "con1/x"], "write con1 --prefix x"),
        (["account", "container", "--endpoint=http://127.0.0.1:99999/x"], "from 1 to 65535"),
        (["account", "container", "--endpoint=blob.example"], "does not start with https://"),
        (["account", "container", "--endpoint=https://u:SECRET@h.example"], "--sas-file"),
        (["account", "container", "--endpoint=https://h.example/?sig=SECRET"], "--sas-file"),
        (["account", "container", "--prefix=a\\b"], "'--prefix': 'a"),
        (["account", "container", "--prefix=\udcff"], "'--prefix': "),
    ],
)
def test_what_the_service_cannot_have_is_refused_without_asking_it(
    tmp_path: Path, arguments: list[str], complaint: str
) -> None:
    mountpoint = tmp_path / "mountpoint"
    mountpoint.mkdir()
    result = run("mount", *arguments, mountpoint, "--auth=anonymous")
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert result.stderr.count("\n") == 1
    assert "SECRET" not in result.output


def test_a_removed_working_directory_is_named_as_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    result = run("mount", "account", "container", "relative")
    assert (result.exit_code, "working directory was removed" in result.stderr) == (2, True)


def test_a_directory_is_claimed_by_one_command_at_a_time(tmp_path: Path) -> None:
    mountpoint = tmp_path / "mountpoint"
    mountpoint.mkdir()
    with claimed(mountpoint) as claim:
        result = run("mount", "account", "container", mountpoint)
        assert (result.exit_code, "already mounted, or about to be" in result.stderr) == (1, True)
        release(claim)
        with claimed(mountpoint):
            pass


# Exit codes and messages


def test_wrong_usage_exits_with_2() -> None:
    assert run("mount", "account", "container").exit_code == 2
    assert run("mount", "account", "container", "/mnt", "--colour=red").exit_code == 2
    assert run("mount", "account", "container", "/mnt", "--sas-file=/no/such/file").exit_code == 2


def test_the_help_says_of_each_command_what_it_is_for() -> None:
    assert "..." not in run("--help").stdout.replace("[ARGS]...", "")


def test_a_command_that_is_none_is_answered_with_one_that_is_like_it() -> None:
    said = "No such command 'shwo'. Did you mean 'show'? See blobfs config --help.\n"
    assert run("config", "shwo").stderr == f"blobfs: {said}"
    assert "mount8" not in run("mount9").stderr


def test_a_dead_mount_is_not_taken_for_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    lstat = os.lstat

    def lstat_of_dead(path: str) -> os.stat_result:
        if str(path) == "deadmount":
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN), path)
        return lstat(path)

    monkeypatch.setattr("os.lstat", lstat_of_dead)
    result = run("cp", "deadmount/file", "here")
    assert (result.exit_code, "are all paths on this machine" in result.stderr) == (2, True)


def test_too_few_open_files_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_path: Path) -> Path:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("blobfs.cli.umount.real_path", fail)
    result = run("umount", "/mnt")
    cure = "Raise the limit on open files (ulimit -n), then run the command again."
    assert (result.exit_code, result.stderr) == (1, f"blobfs: Too many open files. {cure}\n")


def test_a_group_without_a_command_gives_its_help() -> None:
    for group in ([], ["config"]):
        result = run(*group)
        assert result.stderr == run(*group, "--help").stdout
        assert result.exit_code == 2


def test_the_missing_argument_of_a_copy_is_named() -> None:
    assert "Missing argument 'SRC… DST'" in run("cp").stderr
    assert "Missing argument 'DST'" in run("cp", "file").stderr
    assert "Usage: blobfs cp [OPTIONS] SRC… DST\n" in run("cp", "--help").stdout


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
        f"blobfs: {tmp_path}/missing does not exist, so nothing is mounted there.\n",
    )


def test_umount_during_an_outage_says_why_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    uncommitted = [
        UncommittedFile("/file", "still open"),
        UncommittedFile("/gone", "removed, to be deleted"),
        UncommittedFile("/other", "somebody holds a lease", has_failed=True),
    ]
    status = MountStatus(os.getpid(), "account", "container", uncommitted, unnamed_count=3)
    monkeypatch.setattr("blobfs.cli.umount.filesystem_at", lambda _: FILESYSTEM)
    monkeypatch.setattr("blobfs.cli.umount.read_status", lambda _: status)
    monkeypatch.setattr("blobfs.cli.umount.commit_all_below", fail)
    result = run("umount", tmp_path)
    assert result.exit_code == 1
    assert "\n/file: still open; the service cannot be reached or fails" in result.stderr
    assert "\n/gone: removed, to be deleted; the service cannot be reached or fails" in result.stderr
    assert "\n/other: somebody holds a lease\nand 3 more\n" in result.stderr
    assert "run the same command again" in result.stderr
    assert f"blobfs umount --force {tmp_path} gives these files up" in result.stderr


def test_a_mount_tells_its_commands_what_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    left = [Uncommitted("/gone", "removed, to be deleted"), Uncommitted("/other", "leased", has_failed=True)]
    facts = {"pid": 1, "account": "account", "container": "container", **_uncommitted(left)}
    monkeypatch.setattr("os.getxattr", lambda *_: json.dumps(facts).encode())
    status = read_status(Path("/mnt"))
    assert status is not None
    named = [(file.path, file.has_failed) for file in status.uncommitted]
    assert named == [("/other", True), ("/gone", False)]


def test_status_does_not_wait_for_a_mount_that_is_stuck(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blobfs.cli.looks.filesystem_at", lambda _: FILESYSTEM)
    monkeypatch.setattr("blobfs.cli.control.ANSWER_SECONDS", 0.01)
    over = threading.Event()
    monkeypatch.setattr("blobfs.cli.control.read_facts", lambda _: over.wait())
    result = run("status", tmp_path)
    over.set()
    assert result.exit_code == 1
    assert f"{tmp_path} does not answer" in result.stderr
    assert "does not answer" not in result.stdout


def test_a_mount_is_found_without_asking_it_for_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    mountpoint = tmp_path / "real" / "mount"
    find_real = os.path.realpath

    def refuse_mountpoint(path: Path) -> str:
        assert Path(path).name != "mount"
        return find_real(path)

    monkeypatch.setattr("os.path.realpath", refuse_mountpoint)
    monkeypatch.setattr(
        "blobfs.cli.mountpoint.filesystem_at", lambda path: FILESYSTEM if path == mountpoint else None
    )
    assert real_path(tmp_path / "link" / "mount") == mountpoint


def test_watching_as_json_is_refused() -> None:
    assert run("status", "--json", "--watch").exit_code == 2


def test_watching_at_no_interval_is_refused() -> None:
    result = run("status", "--watch", "--interval", "nan")
    assert (result.exit_code, "'nan' is not between 0.2 and 3600 seconds" in result.stderr) == (2, True)


def test_a_plain_directory_has_no_mount_status(tmp_path: Path) -> None:
    assert read_status(tmp_path) is None


def test_users_of_a_directory_are_named_with_their_process(tmp_path: Path) -> None:
    assert list(users_of(tmp_path)) == []
    with (tmp_path / "open").open("w"):
        (user,) = users_of(tmp_path)
        assert list(users_of(tmp_path, 1, os.getpid())) == []
    assert user.endswith(f"({os.getpid()})")


# Standard output


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A private working directory, in which this project's commands are found."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.chdir(tmp_path)


def ended_with_output(redirection: str, command: str) -> tuple[int, str]:
    """Run a command line with its standard output elsewhere; return its exit code and what it said."""
    script = f'"$0" -m blobfs {command} {redirection}'
    ended = subprocess.run(["sh", "-c", script, sys.executable], capture_output=True, text=True, check=False)
    return ended.returncode, ended.stderr


PRINTING = [
    "--version",
    "--help",
    "mount --help",
    "config show",
    "status",
    "recover acc con --spool-dir=.",
]


@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize("command", PRINTING)
def test_output_that_cannot_be_written_is_one_line(command: str) -> None:
    full = (1, "blobfs: standard output: No space left on device\n")
    assert ended_with_output("> /dev/full", command) == full


@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize("command", PRINTING)
def test_a_closed_output_is_refused(command: str) -> None:
    closed = (2, "blobfs: standard output is closed. Open it, or write to /dev/null.\n")
    assert ended_with_output(">&-", command) == closed


def test_nobody_needs_to_read_all_of_the_output() -> None:
    code, said = ended_with_output("| true", "mount --help")
    assert (code, said) == (0, "")


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


def test_the_command_tells_on_stderr_what_cannot_be_written_to_stdout() -> None:
    script = "from blobfs.cli.daemon import detach\ndetach()('mounted')"
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-c", script]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    reason = "blobfs: standard output: No space left on device"
    assert (ended.returncode, ended.stderr) == (0, f"mounted\n{reason}\n")


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_waiting_command_ends_the_process(number: signal.Signals) -> None:
    """The end of file tells that both are gone: they share stderr. nohup(1) may be above us."""
    source = (
        f"import signal, sys\nsignal.signal({int(number)}, signal.SIG_DFL)\n"
        "from blobfs.cli.daemon import detach\ndetach()\n"
        "sys.stderr.write('started\\n'); sys.stderr.flush(); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", source], stderr=subprocess.PIPE, text=True) as command:
        assert command.stderr is not None
        command.stderr.readline()
        command.send_signal(number)
        said = command.stderr.read()
    assert command.returncode == 1
    assert f"ended by {number.name} before the mount answered" in said


def test_a_signal_that_does_not_interrupt_the_waiting_command_is_passed_on_all_the_same() -> None:
    """One that arrives just before a read does not; nor does one that another thread is given."""
    source = """
import os, signal, threading
from pathlib import Path
from waiting import wait_until
from blobfs.cli.daemon import _follow

call = Path(f"/proc/self/task/{os.getpid()}/syscall")

def disturb():
    wait_until(lambda: signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL)
    wait_until(lambda: not call.read_text().startswith("running"))
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

reader, writer = os.pipe()
pid = os.fork()
if not pid:
    os.close(reader)
    signal.alarm(30)
    signal.pause()
os.close(writer)
threading.Thread(target=disturb).start()
_follow(pid, reader)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", source], stderr=subprocess.PIPE, text=True, env=environment
    ) as command:
        try:
            _, said = command.communicate(timeout=10)
        finally:
            command.kill()
    assert "ended by SIGTERM before the mount answered" in said


def test_a_process_for_which_nobody_waits_any_more_ends_itself(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    script = (
        "import signal; os.kill(os.getppid(), signal.SIGKILL); open(sys.argv[1], 'w').close(); "
        "open(sys.argv[1]).close(); ready('mounted'); sys.stderr.write('lived on')"
    )
    source = f"import os, sys\nfrom blobfs.cli.daemon import detach\nready = detach()\n{script}"
    with subprocess.Popen([sys.executable, "-c", source, fifo], stderr=subprocess.PIPE, text=True) as command:
        fifo.read_text()
        command.wait()  # the waiting process is gone for good
        with fifo.open("w"):
            pass
        assert command.stderr is not None
        assert command.stderr.read() == ""


def test_a_process_that_was_killed_before_it_served_is_a_failure() -> None:
    ended = detached("os.kill(os.getpid(), 9)")
    assert ended.returncode == 1
    assert "ended by SIGKILL before the mount answered" in ended.stderr
