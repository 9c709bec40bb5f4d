"""The operations on containers and on the account."""

from responder.account import Account
from responder.memory import Part
from responder.messages import Reply, Request, http_date


def create_container(account: Account, request: Request, _body: Part) -> Reply:
    """Create Container."""
    is_public = bool(request.header("x-ms-blob-public-access"))
    with account.lock:
        account.create_container(request.account, request.container, is_public=is_public)
    return Reply(201)


def delete_container(account: Account, request: Request, _body: Part) -> Reply:
    """Delete Container, at once."""
    with account.lock:
        account.delete_container(request)
    return Reply(202)


def get_container(account: Account, request: Request, _body: Part) -> Reply:
    """Get Container Properties."""
    with account.lock:
        container = account.container_of(request)
    date = http_date(container.modified_seconds)
    return Reply(200, f'ETag: "{container.etag}"\r\nLast-Modified: {date}\r\nx-ms-lease-state: available\r\n')


def get_account(_account: Account, _request: Request, _body: Part) -> Reply:
    """Get Account Information."""
    kind = "x-ms-sku-name: Standard_LRS\r\nx-ms-account-kind: StorageV2\r\n"
    return Reply(200, f"{kind}x-ms-is-hns-enabled: false\r\n")
