"""The Blob service behind the port `blobfs.store.BlobStore`. Nobody else knows HTTP or the SDK.

From the top down:

    assembly     a store from what a user can say
    store        AzureStore: one method of the port each, and recognising writes whose reply was lost
    inspection   questions that change nothing, for the doctor
    client       a request until it has an answer: credential, retries, counting
    retry        which waits, how long, and when to give up
    outage       a service that answers nobody: one attempt at a time finds out
    throttle     how many requests are in flight, fewer when the service is busy
    transport    one request, one attempt, over kept connections
    exchange     a request out, a reply in, by RFC 9112
    pace         replies that are too slow end
    tls          all records that have arrived, with one call
    replies      what a reply must say to be believed
    failures     what a refusal by the service means
    batch        many deletions in one request
    listing      a page of a listing, from XML
    messages     requests, replies, headers and block lists as values
    sources      where a credential and an endpoint come from
    access       what the credential in use allows
    credentials  what a credential is, and how it authorises a request
    addresses    what accounts, containers and endpoints may be called
"""
