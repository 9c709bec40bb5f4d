"""Trees that go into the mount and out of it by the programs that people use for that."""

import os
import shutil
import stat
from pathlib import Path

import pytest
from mounts import Mounts, run, shell
from trees import contents, make_tree, snapshot

PRESERVING = {
    "cp": 'cp -a "$FROM" "$TO"',
    "rsync": 'rsync -a "$FROM/" "$TO/"',
    "tar": 'mkdir "$TO"; tar --format=posix -C "$FROM" -cf - . | tar -C "$TO" -xpf -',
}

by_every_program = pytest.mark.parametrize("program", PRESERVING)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree outside of any mount."""
    return make_tree(tmp_path_factory.mktemp("source") / "tree")


@by_every_program
def test_everything_survives_a_copy_into_the_mount_a_remount_and_a_copy_out_of_it(
    shared_mounts: Mounts, directory: Path, tree: Path, tmp_path: Path, program: str
) -> None:
    expected = snapshot(tree)
    shell(directory, PRESERVING[program], FROM=tree, TO=directory / "copy")
    assert snapshot(directory / "copy") == expected

    again = shared_mounts("--read-only")
    copied = again.path / directory.name / "copy"
    assert snapshot(copied) == expected

    shell(tmp_path, PRESERVING[program], FROM=copied, TO=tmp_path / "back")
    assert snapshot(tmp_path / "back") == expected
    shared_mounts.unmount(again)


def test_a_plain_recursive_copy_has_the_same_contents(directory: Path, tree: Path) -> None:
    shell(directory, 'cp -r "$TREE" copy', TREE=tree)
    assert contents(directory / "copy") == contents(tree)
    assert run("diff", "-r", "--no-dereference", "-x", "fifo", tree, directory / "copy").stdout == ""


def test_a_copy_inside_the_mount_is_the_same(directory: Path, tree: Path) -> None:
    shell(directory, 'cp -a "$TREE" one; cp -a one two', TREE=tree)
    assert snapshot(directory / "two") == snapshot(tree)


def test_python_copies_a_tree(directory: Path, tree: Path) -> None:
    shutil.copytree(tree, directory / "copy", symlinks=True, ignore=shutil.ignore_patterns("fifo"))
    expected = contents(tree)
    del expected["fifo"]
    assert contents(directory / "copy") == expected


@pytest.mark.parametrize("options", ["-a", "-a --inplace", "-aH --checksum --delay-updates"])
def test_a_second_rsync_sends_nothing(
    shared_mounts: Mounts, directory: Path, tree: Path, options: str
) -> None:
    rsync = f'rsync {options} --itemize-changes "$TREE/" "$TO/"'
    assert "large" in shell(directory, rsync, TREE=tree, TO=directory / "copy")
    assert shell(directory, rsync, TREE=tree, TO=directory / "copy") == ""
    again = shared_mounts()
    copied = again.path / directory.name / "copy"
    assert shell(directory, rsync, TREE=tree, TO=copied) == ""
    assert contents(copied) == contents(tree)
    shared_mounts.unmount(again)


def test_rsync_brings_what_changed_and_deletes_what_went(directory: Path, tmp_path: Path) -> None:
    source = make_tree(tmp_path / "tree")
    rsync = 'rsync -a --delete --itemize-changes "$TREE/" copy/'
    shell(directory, rsync, TREE=source)
    (source / "one").chmod(0o600)
    (source / "new").write_text("new")
    (source / "large").write_bytes(b"changed")
    (source / "link").unlink()
    shutil.rmtree(source / "a" / "b")
    for path in (source, source / "a"):
        os.utime(path, (1, 1))  # rsync takes two times within one second for the same
    changes = shell(directory, rsync, TREE=source).splitlines()
    assert {line.split()[1] for line in changes} >= {"one", "new", "large", "link", "a/b/"}
    assert "grüße.txt" not in str(changes)
    assert snapshot(directory / "copy") == snapshot(source)


def test_tar_makes_extracts_lists_and_compares(directory: Path, tree: Path) -> None:
    shell(
        directory,
        'tar --format=posix -C "$TREE" -czf tree.tar.gz .; mkdir copy; tar -C copy -xpzf tree.tar.gz',
        TREE=tree,
    )
    assert snapshot(directory / "copy") == snapshot(tree)
    assert shell(directory, "tar -C copy -dzf tree.tar.gz") == ""
    assert len(shell(directory, "tar -tzf tree.tar.gz").splitlines()) == len(snapshot(tree))


def test_tar_appends_to_an_archive_in_the_mount(directory: Path) -> None:
    listed = shell(
        directory, "echo 1 > one; echo 2 > two; tar -cf all.tar one; tar -rf all.tar two; tar -tf all.tar"
    )
    assert listed.split() == ["one", "two"]


def test_mv_brings_in_moves_about_and_takes_out(directory: Path, tmp_path: Path) -> None:
    source = make_tree(tmp_path / "tree")
    expected = snapshot(source)
    shell(directory, 'mv "$TREE" in', TREE=source)
    assert not source.exists()
    assert snapshot(directory / "in") == expected
    shell(
        directory,
        "mkdir below; mv in below/in; mv below/in/large below/in/larger; mv below/in/larger below/in/large",
    )
    shell(directory, 'mv below/in "$OUT"', OUT=tmp_path / "out")
    after = snapshot(tmp_path / "out")
    expected["."] = after["."]  # its entries changed
    assert after == expected
    assert [path.name for path in directory.rglob("*")] == ["below"]


def test_find_finds_by_name_kind_size_permission_and_time(directory: Path, tree: Path) -> None:
    shell(directory, 'cp -a "$TREE" copy', TREE=tree)
    for query in (
        "-name '*a*'",
        "-type d",
        "-type l",
        "-type p",
        "-empty",
        "-size +10M",
        "-perm -4000",
        "-user 7",
        "-newer one",
        "-links 1 -type f",
        "-depth -mindepth 3",
    ):
        found, expected = (shell(root, f"find . {query}").splitlines() for root in (directory / "copy", tree))
        assert sorted(found) == sorted(expected), query


def test_du_tells_the_sizes(directory: Path) -> None:
    (directory / "below").mkdir()
    (directory / "below" / "file").write_bytes(bytes(1_000_000))
    sizes = shell(directory, "du --bytes --all below; du --block-size=512 below/file").split()
    assert sizes[0::2] == ["1000000", str(1_000_000 + directory.stat().st_size), "1954"]


def test_an_archive_of_modes_is_kept_by_an_own_user(directory: Path) -> None:
    directory.chmod(0o777)
    shell(
        directory,
        "setpriv --reuid=65534 --regid=65534 --clear-groups sh -c 'umask 077; mkdir own; echo 1 > own/file'",
    )
    found = (directory / "own" / "file").stat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (65534, 0o600)
