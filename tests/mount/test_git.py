"""git repositories that live in the mount, and are kept in order there."""

from collections.abc import Callable
from pathlib import Path

from mounts import shell

SETTINGS = """
    export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
    export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example
"""


def test_git_repacks_collects_clones_and_adds_work_trees(
    directory: Path, remounted: Callable[[], Path]
) -> None:
    script = """
        git init -q -b main one
        cd one
        for i in 1 2 3; do seq $i $((i * 2000)) > numbers; git add .; git commit -q -m $i; done
        git repack -a -d -q
        git worktree add -q -b side ../two
        (cd ../two; echo more >> numbers; git commit -q -a -m side)
        git gc -q --aggressive --prune=now
        git clone -q --local --no-hardlinks . ../three
        git -C ../three fsck --strict
        git merge -q side
        git worktree remove ../two
        git fsck --full --strict
        git status --porcelain
    """
    assert shell(directory, SETTINGS + script) == ""
    look = "git config --file safe safe.directory '*'; export GIT_CONFIG_GLOBAL=$PWD/safe; cd one; "
    look += "git fsck --full --strict; git status --porcelain; git log --format=%s"
    assert shell(remounted(), SETTINGS + look).split() == ["side", "3", "2", "1"]
