from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from federated.presign import LONGEST_SECONDS, presign, sign
from federated.store import StoreError, shard_path

NOW = 1_800_000_000.0
KEY = "signing-key-0123456789abcdef"


def test_a_signature_is_the_one_that_nginx_makes() -> None:
    """`printf '%s' "EXPIRES PATH KEY" | openssl md5 -binary | base64 | tr +/ -_ | tr -d =`, as nginx documents it."""
    assert sign("/shards/x.jsonl", "key", 1_800_000_060) == "acnoeSbcWujiJby9P5AkHA"


def test_an_address_holds_its_path_its_end_and_its_signature() -> None:
    address = presign("http://store:8080/", shard_path("a" * 64), KEY, NOW + 59.5, now=NOW)
    parts = urlsplit(address)
    assert (parts.netloc, parts.path) == ("store:8080", f"/shards/{'a' * 64}.jsonl")
    query = parse_qs(parts.query)
    assert query["expires"] == ["1800000060"]
    assert query["signature"] == [sign(parts.path, KEY, 1_800_000_060)]
    assert KEY not in address
    assert presign("http://store:8080", shard_path("a" * 64), KEY, NOW + 59.5, now=NOW) == address


def test_path_key_and_end_each_change_the_signature() -> None:
    one = sign("/a", "key", 1)
    assert len({one, sign("/b", "key", 1), sign("/a", "yek", 1), sign("/a", "key", 2)}) == 4


@pytest.mark.parametrize("seconds", [0, -1, LONGEST_SECONDS + 1, float("inf"), float("nan")])
def test_an_address_is_good_for_a_bounded_time(seconds: float) -> None:
    with pytest.raises(StoreError, match="may be good for at most 604800 s"):
        presign("http://store", "/x", KEY, NOW + seconds, now=NOW)


def test_without_a_key_or_for_a_folder_nothing_is_signed() -> None:
    with pytest.raises(StoreError, match="ARTIFACT_STORE_SIGNING_KEY"):
        presign("http://store", "/x", "", NOW + 1, now=NOW)
    with pytest.raises(StoreError, match=r"only the addresses of an http\(s\) store"):
        presign("file:///srv/store", "/x", KEY, NOW + 1, now=NOW)
