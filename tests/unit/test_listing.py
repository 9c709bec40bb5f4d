"""Pages of a listing, from bytes."""

import base64
import string
from datetime import datetime, timezone
from random import Random
from urllib.parse import quote
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blobfs.azure.listing import parse_page
from blobfs.errors import Failure, Unavailable
from blobfs.store import BlobInfo, BlobKind, ContentHeaders, ListPage

EMPTY_PAGE = (
    b'<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Blobs/><NextMarker/></EnumerationResults>'
)

# What XML can carry and no XML reader changes: a raw carriage return would come back as a newline.
xml_texts = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff")
    | st.sampled_from("\t\n")
)
names = xml_texts.filter(bool)
keys = st.text(string.ascii_letters + "_", min_size=1)
blobs = st.builds(
    BlobInfo,
    name=names,
    etag=st.text(string.hexdigits, min_size=1),
    size_bytes=st.integers(0, 2**48),
    modified_ns=st.integers(0, 2**33).map(lambda seconds: seconds * 10**9),
    metadata=st.dictionaries(keys, xml_texts, max_size=4),
    headers=st.builds(ContentHeaders, xml_texts, xml_texts, xml_texts, xml_texts, xml_texts),
    content_md5=st.none() | st.binary(min_size=16, max_size=16),
    kind=st.sampled_from(BlobKind),
    tier=st.sampled_from(["", "Hot", "Archive"]),
)
pages = st.builds(ListPage, st.lists(blobs, max_size=4), st.lists(names, max_size=4), xml_texts)


def child(parent: ElementTree.Element, tag: str, text: str = "") -> ElementTree.Element:
    element = ElementTree.SubElement(parent, tag)
    element.text = text
    return element


def http_date(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds // 10**9, timezone.utc).strftime("%a, %d %b %Y %H:%M:%S GMT")


def add_blob(parent: ElementTree.Element, info: BlobInfo) -> None:
    blob = child(parent, "Blob")
    child(blob, "Name", info.name)
    properties = child(blob, "Properties")
    child(properties, "Last-Modified", http_date(info.modified_ns))
    child(properties, "Etag", info.etag)
    child(properties, "Content-Length", str(info.size_bytes))
    child(properties, "Content-Type", info.headers.content_type)
    child(properties, "Content-Encoding", info.headers.content_encoding)
    child(properties, "Content-Language", info.headers.content_language)
    child(properties, "Content-Disposition", info.headers.content_disposition)
    child(properties, "Cache-Control", info.headers.cache_control)
    child(properties, "Content-MD5", base64.b64encode(info.content_md5 or b"").decode())
    child(properties, "BlobType", info.kind.value)
    child(properties, "AccessTier", info.tier)
    metadata = child(blob, "Metadata")
    for key, value in info.metadata.items():
        child(metadata, key, value)


def listing_of(page: ListPage) -> bytes:
    root = ElementTree.Element("EnumerationResults")
    entries = child(root, "Blobs")
    for prefix in page.prefixes:
        child(child(entries, "BlobPrefix"), "Name", prefix)
    for info in page.blobs:
        add_blob(entries, info)
    child(root, "NextMarker", page.next_marker)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def page_with_name(name_element: str) -> bytes:
    info = BlobInfo("NAME", "0x1", 0, 0)
    listing = listing_of(ListPage([info], [], "")).decode()
    return listing.replace("<Name>NAME</Name>", name_element).encode()


@given(pages)
def test_page_comes_back_as_the_service_wrote_it(page: ListPage) -> None:
    assert parse_page(listing_of(page)) == page


@pytest.mark.parametrize("key", ["Blob", "Blobs", "BlobPrefix", "Etag", "Metadata", "Name", "Properties"])
@pytest.mark.parametrize("value", ["0", ""])
def test_metadata_may_be_called_like_what_surrounds_it(key: str, value: str) -> None:
    blobs = [BlobInfo("a", "0x1", 0, 0, {key: "0", "owner": value}), BlobInfo("b", "0x2", 0, 0)]
    page = ListPage(blobs, [], "")
    assert parse_page(listing_of(page)) == page


@given(pages, st.sampled_from(["usual", "turned", "any"]), st.randoms(use_true_random=False))
def test_order_of_properties_says_nothing(page: ListPage, order: str, random: Random) -> None:
    root = ElementTree.fromstring(listing_of(page))
    for properties in root.iter("Properties"):
        created = ElementTree.Element("Creation-Time")
        created.text = http_date(0)
        properties.insert(0, created)
        if order == "turned":
            properties[:] = [*properties[4:], *properties[:4]]
        elif order == "any":
            properties[:] = random.sample(list(properties), len(properties))
    assert parse_page(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) == page


@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1))
def test_encoded_names_come_back_as_they_are(name: str) -> None:
    (blob,) = parse_page(page_with_name(f'<Name Encoded="true">{quote(name)}</Name>')).blobs
    assert blob.name == name


@given(st.binary())
def test_arbitrary_bytes_raise_nothing_but_a_failure(body: bytes) -> None:
    with pytest.raises(Failure):
        parse_page(body)


@given(st.binary(max_size=8), st.integers(0, 400))
def test_damaged_listing_is_a_page_or_a_failure(noise: bytes, position: int) -> None:
    listing = listing_of(ListPage([BlobInfo("n", "0x1", 0, 0)], ["p/"], "m"))
    damaged = listing[:position] + noise + listing[position + len(noise) :]
    try:
        parse_page(damaged)
    except Failure:
        return


def test_raw_control_characters_are_replaced_and_hide_no_other_name() -> None:
    (blob,) = parse_page(page_with_name("<Name>a\x01\x1f\ufffeb</Name>")).blobs
    assert blob.name == "a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}b"


def test_empty_page_with_a_marker_is_passed_on() -> None:
    page = parse_page(EMPTY_PAGE.replace(b"<NextMarker/>", b"<NextMarker>2!88!x</NextMarker>"))
    assert (page.blobs, page.prefixes, page.next_marker) == ([], [], "2!88!x")


def test_quoted_etag_loses_its_quotes() -> None:
    body = page_with_name("<Name>x</Name>").replace(b"<Etag>0x1</Etag>", b'<Etag>"0x1"</Etag>')
    assert parse_page(body).blobs[0].etag == "0x1"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<Error><Code>ServerBusy</Code></Error>",
        page_with_name(""),
        page_with_name("<Name></Name>"),
        page_with_name("<Name>x</Name>").replace(b"BlockBlob", b"CubeBlob"),
        page_with_name("<Name>x</Name>").replace(b"Jan", b"Zan"),
        page_with_name("<Name>x</Name>").replace(b"Etag", b"Tage"),
        EMPTY_PAGE.replace(b"utf-8", b"utf-9"),
    ],
)
def test_listing_that_makes_no_sense_is_unavailable(body: bytes) -> None:
    with pytest.raises(Unavailable, match="makes no sense"):
        parse_page(body)
