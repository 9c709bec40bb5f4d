"""The service's error codes, with the status and the text that go with each.

https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes
"""

from xml.sax.saxutils import escape

_KNOWN = {
    "AuthenticationFailed": (403, "Server failed to authenticate the request."),
    "AuthorizationPermissionMismatch": (403, "This request is not authorized with this permission."),
    "BadGateway": (502, "The gateway got no sound answer."),
    "BlobAlreadyExists": (409, "The specified blob already exists."),
    "BlobArchived": (409, "This operation is not permitted on an archived blob."),
    "BlobNotFound": (404, "The specified blob does not exist."),
    "BlockCountExceedsLimit": (409, "The uncommitted block count cannot exceed 100,000."),
    "BlockListTooLong": (400, "The block list may not contain more than 50,000 blocks."),
    "CannotVerifyCopySource": (404, "The specified resource does not exist."),
    "ConditionNotMet": (412, "The condition specified using HTTP conditional header(s) is not met."),
    "ContainerAlreadyExists": (409, "The specified container already exists."),
    "ContainerNotFound": (404, "The specified container does not exist."),
    "ExceedsMaxBatchRequestCount": (400, "The batch operation exceeds the maximum number of subrequests."),
    "GatewayTimeout": (504, "The gateway got no answer in time."),
    "InternalError": (500, "The server encountered an internal error. Please retry the request."),
    "InvalidBlobOrBlock": (400, "The specified blob or block content is invalid."),
    "InvalidBlobType": (409, "The blob type is invalid for this operation."),
    "InvalidBlockList": (400, "The specified block list is invalid."),
    "InvalidHeaderValue": (400, "The value for one of the HTTP headers is not in the correct format."),
    "InvalidInput": (400, "One of the request inputs is not valid."),
    "InvalidMd5": (400, "The MD5 value specified in the request is invalid."),
    "InvalidMetadata": (400, "The metadata specified is invalid. It has characters that are not permitted."),
    "InvalidQueryParameterValue": (400, "Value for one of the query parameters is invalid."),
    "InvalidRange": (416, "The range specified is invalid for the current size of the resource."),
    "InvalidXmlDocument": (400, "XML specified is not syntactically valid."),
    "LeaseAlreadyPresent": (409, "There is already a lease present."),
    "LeaseIdMismatchWithBlobOperation": (412, "The lease ID specified did not match the lease ID."),
    "LeaseIdMissing": (412, "There is currently a lease on the blob and no lease ID was specified."),
    "Md5Mismatch": (400, "The MD5 value specified in the request did not match the value calculated."),
    "MetadataTooLarge": (400, "The size of the specified metadata exceeds the maximum size permitted."),
    "NoAuthenticationInformation": (401, "Server failed to authenticate the request."),
    "NotImplemented": (501, "The responder does not know this operation."),
    "OutOfRangeInput": (400, "One of the request inputs is out of range."),
    "OutOfRangeQueryParameterValue": (400, "A query parameter value is outside the permissible range."),
    "RequestTimeout": (408, "The request took too long."),
    "ServerBusy": (503, "The server is busy."),
    "SnapshotsPresent": (409, "This operation is not permitted because the blob has snapshots."),
    "SourceConditionNotMet": (412, "The source condition specified is not met."),
    "TargetConditionNotMet": (412, "The target condition specified is not met."),
    "TooManyRequests": (429, "Too many requests."),
}

# What a fault gives by its status alone.
CODE_OF_STATUS = {
    401: "NoAuthenticationInformation",
    403: "AuthenticationFailed",
    404: "BlobNotFound",
    408: "RequestTimeout",
    412: "ConditionNotMet",
    429: "TooManyRequests",
    500: "InternalError",
    502: "BadGateway",
    503: "ServerBusy",
    504: "GatewayTimeout",
}


class Refusal(Exception):
    """The service says no."""

    def __init__(self, code: str, *, status: int = 0, headers: str = "", text: str = "") -> None:
        super().__init__(code)
        known_status, known_text = _KNOWN.get(code, (400, code))
        self.code = code
        self.text = text or known_text
        self.status = status or known_status
        self.headers = headers  # whole header lines

    def xml(self, request_id: str, time: str) -> bytes:
        """Return the body that explains it."""
        message = f"{escape(self.text)}\nRequestId:{request_id}\nTime:{time}"
        error = f"<Error><Code>{escape(self.code)}</Code><Message>{message}</Message></Error>"
        return f'<?xml version="1.0" encoding="utf-8"?>{error}'.encode()


class NotModified(Exception):
    """A read whose condition says that nothing is wanted."""
