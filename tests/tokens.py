"""Shared access signatures of the emulator's account, which the responder has, too."""

from datetime import datetime, timedelta, timezone

from azure.storage.blob import ContainerSasPermissions, generate_container_sas
from azurite import Azurite


def container_sas(container: str, letters: str = "racwdl", life: timedelta = timedelta(hours=1)) -> str:
    """Return a SAS with these permissions; one of the past if `life` is negative."""
    return generate_container_sas(
        Azurite.account,
        container,
        account_key=Azurite.key,
        permission=ContainerSasPermissions.from_string(letters),
        expiry=datetime.now(timezone.utc) + life,
    )
