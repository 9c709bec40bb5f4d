"""blobxfer against a service of this machine: ``python blobxfer_here.py upload …``, by blobxfer's own Python.

It knows only addresses like https://ACCOUNT.blob.core.windows.net; the one it is to use
instead stands in the environment.
"""

import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from azure.storage.common._connection import _ServiceParameters  # type: ignore[import-untyped]
from blobxfer_cli.cli import cli  # type: ignore[import-not-found]

ENDPOINT_VARIABLE = "BENCH_ENDPOINT"


def _redirected(initialise: Callable[..., None]) -> Callable[..., None]:
    @wraps(initialise)
    def initialise_here(parameters: Any, service: str, *arguments: Any, **options: Any) -> None:
        here = {"custom_domain": os.environ[ENDPOINT_VARIABLE]} if service == "blob" else {}
        initialise(parameters, service, *arguments, **{**options, **here})

    return initialise_here


_ServiceParameters.__init__ = _redirected(_ServiceParameters.__init__)
sys.exit(cli())
