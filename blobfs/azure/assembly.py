"""A store put together from what a user can say: an account, a container, and where secrets are."""

import os
from pathlib import Path

from blobfs.azure.client import Client
from blobfs.azure.retry import RetryPolicy
from blobfs.azure.sources import UNSAID, find_login
from blobfs.azure.store import AzureStore
from blobfs.azure.throttle import Throttle
from blobfs.azure.transport import Transport
from blobfs.settings import CredentialSettings
from blobfs.waits import TO_THE_END, Waits


def open_store(
    account: str,
    container: str,
    *,
    endpoint: str = "",
    credential: CredentialSettings = UNSAID,
    ca_file: Path | None = None,
    connections: int,
    total_seconds: float,
    first_wait_seconds: float,
    longest_wait_seconds: float,
    connect_seconds: float,
    read_seconds: float,
    stall_seconds: float,
    waits: Waits = TO_THE_END,
) -> AzureStore:
    """Return the store of one container, having sent nothing yet.

    Credentials that no option names are looked for in the environment. Raises InvalidArgument
    for what cannot work; `find_login` and `Transport` say what that is.
    """
    login = find_login(account, container, endpoint=endpoint, sources=credential, environment=os.environ)
    transport = Transport(
        login.endpoint,
        container,
        connections=connections,
        connect_seconds=connect_seconds,
        read_seconds=read_seconds,
        stall_seconds=stall_seconds,
        waits=waits,
        ca_file=ca_file,
    )
    retry = RetryPolicy(
        total_seconds=total_seconds,
        first_wait_seconds=first_wait_seconds,
        longest_wait_seconds=longest_wait_seconds,
        sleep=waits.sleep,
    )
    throttle = Throttle(connections, waits)
    client = Client(transport, login.credential, container, retry, throttle)
    return AzureStore(client, sleep=waits.sleep)
