"""The commands as a user types them, on real mounts."""

import os
import resource
import shlex
import signal
import socket
import stat
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient
from azurite import Azurite
from certificates import make_certificate
from mounts import PROJECT, Mount, Mounts, blobfs, clean_environment, is_mountpoint, on_both_bindings, run
from tokens import container_sas
from waiting import wait_until

NOBODY = 65534


@pytest.fixture
def elsewhere(azurite: Azurite, container: str) -> Iterator[ContainerClient]:
    """The same container as another program sees it."""
    with azurite.client() as client:
        yield client.get_container_client(container)


# Mounting


@on_both_bindings
def test_the_mount_answers_once_the_command_has_returned(mount: Mounts, elsewhere: ContainerClient) -> None:
    mounted = mount()
    assert os.listdir(mounted.path) == []
    (mounted.path / "file").write_bytes(b"content")
    assert elsewhere.download_blob("file").readall() == b"content"


@on_both_bindings
def test_the_kernel_lists_the_mount_as_blobfs(mount: Mounts, container: str) -> None:
    mounted = mount()
    (line,) = [
        line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(mounted.path) in line
    ]
    assert "fuse.blobfs" in line
    assert container in line


def test_the_log_is_private_and_the_command_says_where_it_is(mount: Mounts) -> None:
    mounted = mount()
    assert f"log: {mounted.log}" in mounted.announcement
    assert stat.S_IMODE(mounted.log.stat().st_mode) == 0o600


def test_a_log_that_takes_no_line_is_refused(mount: Mounts) -> None:
    ended = blobfs(*mount.arguments(mount.new_mountpoint()), "--log-file", "/dev/full")
    assert ended.returncode == 1
    assert "cannot log to /dev/full: No space left on device. Give another --log-file." in ended.stderr


def test_without_a_log_file_the_log_is_in_syslog_or_the_state_directory(
    mount: Mounts, container: str, azurite: Azurite, tmp_path: Path
) -> None:
    path = mount.new_mountpoint()
    ended = blobfs(*mount.arguments(path), XDG_STATE_HOME=str(tmp_path))
    file = tmp_path / "blobfs" / f"{azurite.account}-{container}.log"
    mount.adopt(path, file)
    assert f"log: {'syslog, as blobfs' if Path('/dev/log').exists() else file}" in ended.stdout


def test_a_mountpoint_with_files_is_used_with_a_warning(mount: Mounts) -> None:
    path = mount.new_mountpoint()
    (path / "hidden").touch()
    ended = blobfs(*mount.arguments(path), "--log-file", path.with_suffix(".log"))
    mounted = mount.adopt(path, path.with_suffix(".log"))
    assert "not empty; the mount hides what is in it" in ended.stderr
    assert os.listdir(path) == []
    mount.unmount(mounted)
    assert os.listdir(path) == ["hidden"]


@on_both_bindings
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_foreground_commits_and_unmounts(
    mount: Mounts, elsewhere: ContainerClient, number: signal.Signals
) -> None:
    path = mount.new_mountpoint()
    command = [sys.executable, "-m", "blobfs", *mount.arguments(path), "--foreground"]
    with subprocess.Popen(
        command,
        cwd=PROJECT,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # comes when the mount answers
        descriptor = os.open(path / "file", os.O_CREAT | os.O_WRONLY)
        os.write(descriptor, b"not yet closed")
        process.send_signal(number)
        _, said = process.communicate()
    with pytest.raises(OSError, match="not connected"):
        os.close(descriptor)
    assert process.returncode == 0, said
    assert not is_mountpoint(path)
    assert elsewhere.download_blob("file").readall() == b"not yet closed"


def test_what_is_done_is_a_success_though_stdout_cannot_be_written(mount: Mounts) -> None:
    path = mount.new_mountpoint()
    command = shlex.join([sys.executable, "-m", "blobfs"])
    arguments = shlex.join(mount.arguments(path))
    ended = run(
        "sh",
        "-c",
        f"""
        {command} {arguments} --log-file {path}.log > /dev/full
        echo $? && findmnt -no FSTYPE {path}
        {command} sync {path} > /dev/full
        echo $?
        {command} umount {path} > /dev/full
        echo $? && findmnt -no FSTYPE {path}
        timeout --signal INT 5 {command} {arguments} --foreground > /dev/full
        """,
    )
    assert ended.stdout.split() == ["0", "fuse.blobfs", "0", "0"]
    for words in (f"is mounted on {path} by", "everything is committed.", "committed; unmounted."):
        assert words in ended.stderr
    assert ended.stderr.count("blobfs: standard output: No space left on device\n") == 4
    assert "Traceback" not in ended.stderr


# What keeps a mount from being made


def refusal(mount: Mounts, *options: str | Path, exit_code: int = 1, **environment: str) -> str:
    """Return the message of a mount command that fails and leaves nothing behind."""
    path = mount.new_mountpoint()
    log = path.with_suffix(".log.of-refused-mount")
    ended = blobfs(*mount.arguments(path), "--log-file", log, *options, **environment)
    assert (ended.returncode, ended.stdout) == (exit_code, "")
    assert not is_mountpoint(path)
    assert "Traceback" not in ended.stderr
    assert ended.stderr.startswith("blobfs: ")
    return ended.stderr


def test_a_missing_container_is_named_with_the_option_that_makes_it(azurite: Azurite) -> None:
    with Mounts(azurite, "missing-" + uuid.uuid4().hex, "libfuse3") as mount:
        message = refusal(mount)
        assert "missing-" in message
        assert "--create-container" in message
        (mount("--create-container").path / "file").touch()


def test_a_refused_key_says_so_without_showing_it(mount: Mounts, tmp_path: Path) -> None:
    key = "c2VjcmV0" * 10 + "c2VjcmU="
    file = tmp_path / "key"
    file.write_text(key)
    message = refusal(mount, "--account-key-file", file)
    assert message.startswith(f"blobfs: {file}: other users may read this secret")
    assert "refused" in message or "denied" in message
    assert key not in message


def test_an_expired_sas_says_so_without_showing_it(mount: Mounts, container: str, tmp_path: Path) -> None:
    token = container_sas(container, "rl", -timedelta(hours=1))
    file = tmp_path / "sas"
    file.write_text(token)
    message = refusal(mount, "--sas-file", file)
    assert "expired" in message
    assert token.rpartition("sig=")[2] not in message


@pytest.mark.parametrize("options", [[], ["--create-container"]])
def test_a_service_that_nobody_runs_is_named_long_before_its_timeout(
    mount: Mounts, options: list[str]
) -> None:
    nowhere = ("--endpoint", "http://127.0.0.1:1/devstoreaccount1", "--timeout", "3600")
    assert "127.0.0.1:1" in refusal(mount, *nowhere, *options)


@on_both_bindings
@pytest.mark.parametrize("thread", ["blobfs-due", "blobfs-timer", "_announce"])
def test_a_machine_that_gives_no_more_threads_is_named_and_nothing_stays_mounted(
    mount: Mounts, tmp_path: Path, thread: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import threading\n"
        "start = threading.Thread.start\n"
        "def start_unless_too_many(thread):\n"
        f"    if {thread!r} in thread.name: raise RuntimeError('can\\'t start new thread')\n"
        "    start(thread)\n"
        "threading.Thread.start = start_unless_too_many\n"
    )
    path = mount.new_mountpoint()
    ended = blobfs(*mount.arguments(path), "--log-file", tmp_path / "log", PYTHONPATH=str(tmp_path))
    assert ended.returncode == 1
    assert "cannot be served: can't start new thread. Raise the limit" in ended.stderr
    assert not is_mountpoint(path)


def test_a_limit_on_open_files_is_raised_or_named(mount: Mounts) -> None:
    path = mount.new_mountpoint()
    command = [sys.executable, "-m", "blobfs", *mount.arguments(path), "--log-file", f"{path}.log"]
    ended = run("sh", "-c", f"ulimit -n 100; {shlex.join(command)}")
    assert (ended.returncode, is_mountpoint(path)) == (1, False)
    assert "cannot mount: only 100 files may be open (ulimit -Hn), and a mount needs 512." in ended.stderr
    ended = run("sh", "-c", f"ulimit -Sn 8; {shlex.join(command)}")
    assert ended.returncode == 0, ended.stderr
    mounted = mount.adopt(path, Path(f"{path}.log"))
    assert resource.prlimit(mounted.pid, resource.RLIMIT_NOFILE)[0] >= 512


def test_a_service_elsewhere_must_speak_https(mount: Mounts) -> None:
    message = refusal(mount, "--endpoint", "http://blob.example/account", exit_code=2)
    assert "use https" in message


def test_an_endpoint_that_speaks_http_only_is_told_from_one_that_is_down(
    mount: Mounts, azurite: Azurite
) -> None:
    endpoint = azurite.endpoint.replace("http:", "https:")
    assert "does not speak https; is the endpoint's port right?" in refusal(mount, "--endpoint", endpoint)


def test_an_endpoint_that_speaks_https_only_is_told_from_one_that_is_down(
    mount: Mounts, tmp_path: Path
) -> None:
    with Azurite(*make_certificate(tmp_path)) as azurite:
        endpoint = azurite.endpoint.replace("https:", "http:")
        assert "does it speak https there?" in refusal(mount, "--endpoint", endpoint)


def test_what_is_wrong_with_the_command_itself_is_found_without_the_service(
    mount: Mounts, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    nowhere = ("--endpoint", "https://account.invalid")
    assert "put the secret there" in refusal(mount, *nowhere, "--sas-file", empty, exit_code=2)
    assert "no certificate" in refusal(mount, *nowhere, "--ca-file", empty, exit_code=2)
    assert "the proxy in HTTPS_PROXY" in refusal(
        mount, *nowhere, "--auth=anonymous", exit_code=2, HTTPS_PROXY="http://127.0.0.1:99999"
    )
    connection_string = {"AZURE_STORAGE_CONNECTION_STRING": "nonsense"}
    assert "NAME=VALUE" in refusal(mount, *nowhere, exit_code=2, **connection_string)


def test_a_directory_is_mounted_only_once(mount: Mounts) -> None:
    mounted = mount()
    ended = blobfs(*mount.arguments(mounted.path))
    assert ended.returncode == 1
    assert f"{mounted.path} is already mounted" in ended.stderr
    assert str(mounted.pid) in ended.stderr


def test_of_simultaneous_commands_for_one_directory_one_succeeds(mount: Mounts) -> None:
    path = mount.new_mountpoint()
    log = path.with_suffix(".log")
    commands = [command_of(*mount.arguments(path), "--log-file", str(log)) for _ in range(4)]
    said = [command.communicate()[1] for command in commands]
    mounted = mount.adopt(path, log)
    refused = [text for command, text in zip(commands, said, strict=True) if command.returncode]
    assert len(refused) == 3
    assert all(f"{path} is already mounted" in text for text in refused)
    mount.unmount(mounted)
    assert not is_mountpoint(path)


def command_of(*arguments: str) -> subprocess.Popen[str]:
    """Start a command; it runs while the test goes on."""
    return subprocess.Popen(
        [sys.executable, "-m", "blobfs", *arguments],
        cwd=PROJECT,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_no_mount_appears_after_a_signal_to_the_waiting_command(
    mount: Mounts, number: signal.Signals
) -> None:
    path = mount.new_mountpoint()
    with socket.create_server(("127.0.0.1", 0)) as service:
        arguments = mount.arguments(path)
        arguments[arguments.index("--endpoint") + 1] = f"http://127.0.0.1:{service.getsockname()[1]}/account"
        command = command_of(*arguments, "--log-file", str(path.with_suffix(".log")))
        connection, _ = service.accept()  # the background process waits for a reply now
        with connection:
            command.send_signal(number)
            _, said = command.communicate()  # ends when the background process has, too
    assert command.returncode == 1
    assert said == f"blobfs: ended by {number.name} before the mount answered; nothing is mounted.\n"
    assert not is_mountpoint(path)


def test_a_mount_over_the_working_directory_says_how_to_enter_it(mount: Mounts) -> None:
    path = mount.new_mountpoint()
    log = path.with_suffix(".log")
    arguments = [*mount.arguments(path), "--log-file", str(log)]
    script = 'cd "$1" && shift && exec "$@"'
    ended = run(
        "sh", "-c", script, "sh", path, sys.executable, "-m", "blobfs", *arguments, PYTHONPATH=str(PROJECT)
    )
    mount.adopt(path, log)
    assert f"cd {path}" in ended.stderr


def test_a_mount_whose_process_died_is_named_with_the_cure(mount: Mounts) -> None:
    mounted = mount()
    mounted.kill()
    ended = blobfs(*mount.arguments(mounted.path))
    assert ended.returncode == 1
    assert f"blobfs umount {mounted.path}" in ended.stderr


# Credentials


def test_a_read_only_credential_gives_a_read_only_mount_and_says_so(
    mount: Mounts, container: str, tmp_path: Path
) -> None:
    file = tmp_path / "sas"
    file.touch(0o600)
    file.write_text("?" + container_sas(container, "rl", timedelta(hours=1)))
    mounted = mount("--sas-file", file)
    assert "read-only" in mounted.announcement
    with pytest.raises(OSError, match="Read-only"):
        (mounted.path / "file").touch()


def test_a_sas_that_may_not_delete_is_announced_with_what_that_means(mount: Mounts, container: str) -> None:
    token = container_sas(container, "racwl", timedelta(hours=1))
    mounted = mount(AZURE_STORAGE_SAS_TOKEN=token)
    assert "credential: " in mounted.announcement
    assert "deletes and renames will be refused" in mounted.announcement


@pytest.mark.parametrize(("ignores", "code"), [(False, -signal.SIGINT), (True, 0)])
def test_ctrl_c_ends_a_command_that_is_still_loading_without_a_word(
    tmp_path: Path, *, ignores: bool, code: int
) -> None:
    """Unless it runs in the background, where a shell has it ignore the signal."""
    (tmp_path / "click.py").write_text(
        "import os, signal, sys\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.path.remove(os.path.dirname(__file__))\n"
        "del sys.modules['click']\n"
        "import click\n"
    )
    trap = "trap '' INT; " if ignores else ""
    ended = run("sh", "-c", f'{trap}exec "$0" -m blobfs --version', sys.executable, PYTHONPATH=str(tmp_path))
    assert (ended.returncode, ended.stderr) == (code, "")


def test_no_secret_shows_in_the_log_the_output_or_the_process_list(mount: Mounts, container: str) -> None:
    token = container_sas(container, "racwdl", timedelta(hours=1))
    mounted = mount("--log-level=debug", AZURE_STORAGE_SAS_TOKEN=token)
    (mounted.path / "file").write_bytes(b"content")
    shown = mounted.announcement + mounted.log.read_text() + Path(f"/proc/{mounted.pid}/cmdline").read_text()
    assert "AZURE_STORAGE_SAS_TOKEN" in shown
    assert token.rpartition("sig=")[2] not in shown


# Unmounting


@on_both_bindings
def test_umount_returns_when_everything_is_committed_and_the_process_is_gone(
    mount: Mounts, elsewhere: ContainerClient
) -> None:
    mounted = mount()
    (mounted.path / "file").write_bytes(b"content")
    ended = blobfs("umount", mounted.path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"{mounted.path}: everything is committed; unmounted.\n"
    assert not is_mountpoint(mounted.path)
    assert not is_running(mounted)
    assert elsewhere.download_blob("file").readall() == b"content"
    mounted.has_died = True


def is_running(mounted: Mount) -> bool:
    """Tell whether the process serves still; one that nobody has waited for does not."""
    try:
        return "State:\tZ" not in Path(f"/proc/{mounted.pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_umount_leaves_a_busy_mount_in_place_and_names_who_uses_it(
    mount: Mounts, elsewhere: ContainerClient
) -> None:
    mounted = mount()
    with (mounted.path / "file").open("wb", buffering=0) as file:
        file.write(b"open")
        ended = blobfs("umount", mounted.path)
        assert ended.returncode == 1
        assert f"({os.getpid()})" in ended.stderr
        assert elsewhere.download_blob("file").readall() == b"open"
        file.write(b", and usable")
    assert elsewhere.download_blob("file").readall() == b"open, and usable"


def test_umount_without_the_program_that_unmounts_says_so_and_leaves_the_mount(mount: Mounts) -> None:
    mounted = mount()
    ended = blobfs("umount", mounted.path, PATH="")
    said = f"blobfs: {mounted.path} stays mounted: there is no umount on PATH.\n"
    assert (ended.returncode, ended.stderr) == (1, said)
    assert is_mountpoint(mounted.path)


def test_umount_names_a_working_directory_below_the_mount(mount: Mounts) -> None:
    mounted = mount()
    (mounted.path / "below").mkdir()
    with subprocess.Popen(["cat"], cwd=mounted.path / "below", stdin=subprocess.PIPE) as user:
        ended = blobfs("umount", mounted.path)
        assert ended.returncode == 1
        assert f"in use: cat ({user.pid})" in ended.stderr
        assert user.stdin is not None
        user.stdin.close()


def test_umount_refuses_mounts_that_are_not_blobfs_and_places_inside_one(mount: Mounts) -> None:
    mounted = mount()
    (mounted.path / "below").mkdir()
    ended = blobfs("umount", mounted.path / "below")
    assert ended.returncode == 1
    assert f"lies inside a mount: {mounted.path}" in ended.stderr
    ended = blobfs("umount", "/proc")
    assert ended.returncode == 1
    assert "it is a mount of proc" in ended.stderr


def test_of_simultaneous_umounts_one_succeeds_and_the_others_say_so(mount: Mounts) -> None:
    mounted = mount()
    commands = [command_of("umount", str(mounted.path)) for _ in range(3)]
    said = [command.communicate() for command in commands]
    assert not is_mountpoint(mounted.path)
    mounted.has_died = True
    refused = [text for command, (_, text) in zip(commands, said, strict=True) if command.returncode]
    assert len(refused) == 2
    for text in refused:
        assert "is not mounted by blobfs" in text or "by another command" in text


def test_umount_by_force_names_what_it_gives_up(mount: Mounts, elsewhere: ContainerClient) -> None:
    mounted = mount()
    mount.expect_log("file")
    (mounted.path / "file").write_bytes(b"old")
    with (mounted.path / "file").open("wb", buffering=0) as file:
        file.write(b"new")
        elsewhere.upload_blob("file", b"theirs", overwrite=True)

        ended = blobfs("umount", "--force", mounted.path)

        assert ended.returncode == 1
        assert "giving up what is not committed:\n/file: " in ended.stderr
        assert not is_mountpoint(mounted.path)
        mounted.has_died = True
        with suppress(OSError):
            file.close()
    assert elsewhere.download_blob("file").readall() == b"theirs"


def test_umount_removes_a_mount_whose_process_died_and_promises_nothing(mount: Mounts) -> None:
    mounted = mount()
    mounted.kill()
    ended = blobfs("umount", mounted.path)
    assert ended.returncode == 1
    assert "unmounted, but its process had died" in ended.stderr
    assert not is_mountpoint(mounted.path)


@pytest.fixture
def stuck(mount: Mounts) -> Iterator[Mount]:
    """A mount whose process is stopped; afterwards it goes on."""
    mounted = mount()
    os.kill(mounted.pid, signal.SIGSTOP)
    wait_until(lambda: "State:\tT" in Path(f"/proc/{mounted.pid}/status").read_text())
    yield mounted
    os.kill(mounted.pid, signal.SIGCONT)
    wait_until(lambda: is_mountpoint(mounted.path) or not is_running(mounted))


def test_umount_says_for_which_process_it_waits(stuck: Mount) -> None:
    command = command_of("umount", str(stuck.path))
    assert command.stderr is not None
    assert f"{stuck.path}: waiting for process {stuck.pid}. " in command.stderr.readline()
    assert command.poll() is None
    command.kill()
    command.communicate()


def test_umount_by_force_takes_a_stuck_mount_away_and_says_what_that_may_lose(stuck: Mount) -> None:
    ended = blobfs("umount", "--force", stuck.path)
    assert ended.returncode == 1
    assert f"process {stuck.pid} does not answer within 5 seconds" in ended.stderr
    assert "Giving up what no close()" in ended.stderr
    assert f"unmounted, without what process {stuck.pid} had not committed" in ended.stderr
    assert not is_mountpoint(stuck.path)
    stuck.has_died = True


# Other users, and mount(8)


def in_a_namespace(tmp_path: Path, script: str, **names: str | Path) -> str:
    """Run a script for which `blobfs` is in /usr/local/bin; return what it printed.

    Its /dev/fuse is there for everyone, and $AS_NOBODY before a command takes root's rights
    away, except that of reading this project wherever it may be.
    """
    program = tmp_path / "bin" / "blobfs"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{PROJECT}" exec "{sys.executable}" -m blobfs "$@"\n')
    program.chmod(0o755)
    setup = """
        set -e
        mount --bind "$BIN" /usr/local/bin
        mount -t tmpfs tmpfs /mnt
        mknod -m 666 /mnt/fuse c 10 229
        mount --bind /mnt/fuse /dev/fuse
        umount -l /mnt
    """
    caps = "-all,+dac_override"
    drop = f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups --inh-caps={caps} --ambient-caps={caps}"
    environment = {"BIN": str(program.parent), "AS_NOBODY": drop}
    environment.update((name, str(value)) for name, value in names.items())
    ended = run("unshare", "--mount", "bash", "-c", setup + script, **environment)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout + ended.stderr


@on_both_bindings
def test_a_user_without_rights_mounts_and_unmounts(mount: Mounts, tmp_path: Path) -> None:
    path = mount.new_mountpoint()
    os.chown(path, NOBODY, NOBODY)
    script = """
        install -d -o nobody "$DIR.nobody"
        $AS_NOBODY blobfs $ARGUMENTS --log-file "$DIR.nobody/mount.log"
        $AS_NOBODY touch "$DIR/file"
        $AS_NOBODY stat -c '%U %n' "$DIR/file"
        ! blobfs umount "$DIR" || exit 1
        $AS_NOBODY blobfs umount "$DIR"
    """
    said = in_a_namespace(tmp_path, script, DIR=path, ARGUMENTS=" ".join(mount.arguments(path)))
    assert f"nobody {path}/file" in said
    assert f"{path} is another user's mount" in said
    assert f"{path}: everything is committed; unmounted." in said


def test_mount8_mounts_a_type_of_fuse_blobfs(
    mount: Mounts, azurite: Azurite, container: str, elsewhere: ContainerClient, tmp_path: Path
) -> None:
    path = mount.new_mountpoint()
    options = f"noexec,uid=5,_netdev,endpoint={azurite.endpoint},log_file={path}.log"
    script = """
        mount -t fuse.blobfs "$SPEC" "$DIR" -o "$OPTIONS"
        grep " $DIR " /proc/self/mountinfo
        echo content > "$DIR/file"
        stat -c %u "$DIR"
        blobfs umount "$DIR"
    """
    said = in_a_namespace(tmp_path, script, SPEC=f"{azurite.account}/{container}", DIR=path, OPTIONS=options)
    assert "noexec" in said
    assert "\n5\n" in said
    assert elsewhere.download_blob("file").readall() == b"content\n"


def test_mount8_mounts_a_line_of_fstab(
    mount: Mounts, azurite: Azurite, container: str, elsewhere: ContainerClient, tmp_path: Path
) -> None:
    elsewhere.upload_blob("below/file", b"content")
    path = mount.new_mountpoint()
    options = f"ro,user,noauto,_netdev,x-systemd.automount,endpoint={azurite.endpoint},log_file={path}.log"
    fstab = tmp_path / "fstab"
    fstab.write_text(f"{azurite.account}/{container}/below {path} fuse.blobfs {options} 0 0\n")
    script = """
        mount -T "$FSTAB" "$DIR"
        cat "$DIR/file"
        ! touch "$DIR/new" || exit 1
        blobfs umount "$DIR"
    """
    assert "content" in in_a_namespace(tmp_path, script, FSTAB=fstab, DIR=path)
