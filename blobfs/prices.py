"""What requests would cost: a model, by the service's published sample prices. Pure.

Hot tier, USD for 10,000 requests; data retrieval is free there:
https://learn.microsoft.com/azure/storage/blobs/azcopy-cost-estimation
"""

from collections.abc import Mapping

_PRICES = {"write": 0.055, "read": 0.0044, "list": 0.055, "other": 0.0044, "free": 0.0}
_CLASSES = {
    "PUT blob": "write",
    "PUT block": "write",
    "PUT block from URL": "write",
    "PUT block list": "write",
    "PUT copy": "write",
    "GET blob": "read",
    "LIST": "list",
    "PUT container": "list",
    "DELETE blob": "free",
}  # the rest is "other"


def cost_usd(requests: Mapping[str, int]) -> float:
    """Return what these requests, counted by kind, would cost."""
    return sum(count * _PRICES[_CLASSES.get(kind, "other")] for kind, count in requests.items()) / 10_000
