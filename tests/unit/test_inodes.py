from blobfs.tree.inodes import ROOT, DirectoryTimes, InodeNumbers


def test_number_of_a_name_is_the_same_on_every_mount() -> None:
    first, second = InodeNumbers(), InodeNumbers()
    assert first.of("a/b") == second.of("a/b")
    assert first.of("a/b") != first.of("a/c")


def test_number_fits_a_signed_word_and_is_never_the_roots() -> None:
    numbers = [InodeNumbers().of(f"{index}") for index in range(1000)]
    assert all(ROOT < number < 2**63 for number in numbers)
    assert len(set(numbers)) == 1000
    assert InodeNumbers().of("") == ROOT


def test_name_that_is_not_unicode_has_a_number() -> None:
    assert InodeNumbers().of("caf\udce9") != InodeNumbers().of("caf")


def test_renamed_file_takes_its_number_along() -> None:
    inodes = InodeNumbers()
    number = inodes.of("old")
    inodes.rename("old", "new")
    inodes.rename("new", "newer")
    assert inodes.of("newer") == number
    assert len({inodes.of(name) for name in ("old", "new", "newer")}) == 3


def test_name_used_again_and_again_gets_a_number_of_its_own_each_time() -> None:
    inodes = InodeNumbers()
    seen = set()
    for number in range(10):
        seen.add(inodes.of("log"))
        inodes.rename("log", f"log.{number}")
    assert len(seen) == 10
    assert seen == {inodes.of(f"log.{number}") for number in range(10)}


def test_retired_name_gets_another_number() -> None:
    inodes = InodeNumbers()
    number = inodes.of("x")
    inodes.retire("x")
    assert inodes.of("x") != number


def test_directory_shows_when_it_was_changed_here_until_that_is_forgotten() -> None:
    times = DirectoryTimes()
    assert times.get("d") == 0
    times.touch("d", 5)
    times.touch("d", 7)
    assert times.get("d") == 7
    times.forget("d")
    times.forget("d")
    assert times.get("d") == 0
