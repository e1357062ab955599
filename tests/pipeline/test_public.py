"""Secrets leave addresses and sentences; nothing that a terminal obeys is left in a line."""

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from rsup.pipeline.public import printable, public_address, public_text

SECRET = "s3cret"


@pytest.mark.parametrize(
    ("address", "public"),
    [
        (f"https://user:{SECRET}@host:8080/a/b.tif?sig={SECRET}#{SECRET}", "https://host:8080/a/b.tif"),
        (f"https://us@er:{SECRET}@host/a.tif", "https://host/a.tif"),
        (f"s3://bucket/key.tif?{SECRET}", "s3://bucket/key.tif"),
        (f"http://[::1/a.tif?{SECRET}", "http://[::1/a.tif"),
        (f"HTTP://u:{SECRET}@[::1]:80/", "http://[::1]:80/"),
        ("/data/what is this?.zarr", "/data/what is this?.zarr"),
        ("earth-search", "earth-search"),
    ],
)
def test_an_address_loses_its_secrets_and_nothing_else(address: str, public: str) -> None:
    assert public_address(address) == public


def test_a_sentence_loses_the_secrets_of_the_addresses_in_it() -> None:
    text = f"'/vsicurl/https://u:{SECRET}@host/a.tif?sig={SECRET}' failed (see http://x/y?{SECRET}), and what? nothing"
    assert public_text(text) == "'/vsicurl/https://host/a.tif' failed (see http://x/y), and what? nothing"


def test_what_requests_says_of_a_refused_connection_is_cleaned() -> None:
    with pytest.raises(requests.ConnectionError) as caught:
        requests.get(f"http://u:{SECRET}@127.0.0.1:1/search?key={SECRET}", timeout=5)
    assert SECRET in str(caught.value)  # else this test shows nothing
    assert SECRET not in public_text(str(caught.value))
    assert "/search" in public_text(str(caught.value))


@given(st.text(st.characters(codec=None)))
def test_a_printable_line_is_one_line_that_any_terminal_takes(text: str) -> None:
    line = printable(text)
    assert len(line.splitlines()) <= 1
    line.encode("utf-8")
    assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 or char in "\u202e\u2066\u200f" for char in line)


def test_printable_keeps_what_can_be_read() -> None:
    assert printable("São Paulo #1 100% 日本") == "São Paulo #1 100% 日本"
    assert printable("a\nb\x1b[31m\u202e\ud800") == r"a\nb\x1b[31m\u202e\ud800"
