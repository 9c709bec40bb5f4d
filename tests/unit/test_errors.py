import errno
from collections.abc import Iterator

import pytest

from blobfs import errors
from blobfs.errors import Failure, errno_of


def failures_below(parent: type[Failure]) -> Iterator[type[Failure]]:
    for failure in parent.__subclasses__():
        yield failure
        yield from failures_below(failure)


every_failure = pytest.mark.parametrize(
    "failure", [Failure, *failures_below(Failure)], ids=lambda cls: cls.__name__
)


@every_failure
def test_a_failure_states_its_own_errno(failure):
    assert failure.__dict__["errno"] in errno.errorcode
    assert errno_of(failure("blob")) == failure.errno


@every_failure
def test_a_failure_is_not_an_oserror(failure):
    """The FUSE bindings read ``errno`` from those and give applications garbage when there is none."""
    assert not issubclass(failure, OSError)


@every_failure
def test_a_failure_is_defined_beside_the_others(failure):
    assert getattr(errors, failure.__name__) is failure


@pytest.mark.parametrize(
    ("failure", "number"),
    [
        (errors.NotFound, errno.ENOENT),
        (errors.AlreadyExists, errno.EEXIST),
        (errors.AccessDenied, errno.EACCES),
        (errors.Changed, errno.ESTALE),
        (errors.NameTooLong, errno.ENAMETOOLONG),
        (errors.NoSpace, errno.ENOSPC),
        (errors.TimedOut, errno.ETIMEDOUT),
    ],
)
def test_applications_see_the_cause(failure, number):
    assert errno_of(failure("blob")) == number


@pytest.mark.parametrize(
    "error",
    [
        KeyError("x"),
        TimeoutError(),
        OSError(),
        ConnectionResetError(errno.ECONNRESET, "reset"),
        MemoryError(),
    ],
    ids=repr,
)
def test_whatever_blobfs_does_not_name_is_an_input_output_error(error):
    assert errno_of(error) == errno.EIO


def test_text_that_is_not_unicode_is_an_invalid_argument():
    with pytest.raises(UnicodeError) as caught:
        "\ud800".encode()
    assert errno_of(caught.value) == errno.EINVAL
