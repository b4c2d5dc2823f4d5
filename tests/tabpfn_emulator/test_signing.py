"""Signed URLs as such: everything that was signed counts, nothing else does."""

from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabpfn_emulator._storage.signing import SignatureExpiredError, SignatureMismatchError, Signer

KEY = bytes(range(32))
PATH = "/storage/0b7e/x_train/0"
HEADERS = {"content-type": "application/octet-stream", "x-goog-content-length-range": "0,10"}
EXPIRES = 2_000_000_000

texts = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
header_names = st.from_regex(r"[a-z][a-z0-9-]{0,12}", fullmatch=True)


@given(texts, texts, st.integers(1, 2**40), st.dictionaries(header_names, texts, max_size=4), st.binary(min_size=32))
def test_what_was_signed_is_good_until_it_expires(method, path, expires, headers, key):
    query = Signer(key).sign(method, path, expires + 0.5, headers)
    # Another process with the same key, and headers that nobody has signed.
    again = Signer(key)
    assert again.check(method, path, query, {**headers, "X-Other": "1"}, expires - 1) == headers
    with pytest.raises(SignatureExpiredError) as expired:
        again.check(method, path, query, headers, expires)
    assert expired.value.expires_at == expires
    with pytest.raises(SignatureMismatchError):
        Signer(key + b"x").check(method, path, query, headers, 0)


@given(st.data())
def test_anything_that_is_changed_is_refused(data):
    signer = Signer(KEY)
    pairs = parse_qsl(signer.sign("PUT", PATH, EXPIRES, HEADERS))
    number = data.draw(st.integers(0, len(pairs) - 1))
    name, value = pairs[number]
    changed = {
        "value": [*pairs[:number], (name, data.draw(st.text(max_size=80).filter(lambda new: new != value)))],
        "name": [*pairs[:number], (name + "x", value)],
        "twice": [*pairs[:number], (name, value), (name, value)],
        "missing": pairs[:number],
        "added": [*pairs[:number], ("prefix", ""), (name, value)],
        "swapped": [pairs[number - 1], *pairs[:number], (name, value)],
    }
    tampered = changed[data.draw(st.sampled_from(sorted(changed)))] + pairs[number + 1 :]
    with pytest.raises(SignatureMismatchError):
        signer.check("PUT", PATH, urlencode(tampered), HEADERS, 0)


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", PATH, HEADERS),
        ("put", PATH, HEADERS),
        ("PUT", PATH + "/", HEADERS),
        ("PUT", PATH.replace("/x_train", "//x_train"), HEADERS),
        ("PUT", PATH.replace("0b7e/", "0b7e%2F"), HEADERS),
        ("PUT", PATH, {**HEADERS, "content-type": "text/csv"}),
        ("PUT", PATH, {"content-type": "application/octet-stream"}),
        ("PUT", PATH, {**HEADERS, "x-goog-content-length-range": "0,10,0,99"}),
    ],
)
def test_method_path_and_headers_are_signed(method, path, headers):
    signer = Signer(KEY)
    query = signer.sign("PUT", PATH, EXPIRES, HEADERS)
    signer.check("PUT", PATH, query, HEADERS, 0)
    with pytest.raises(SignatureMismatchError):
        signer.check(method, path, query, headers, 0)


@given(st.text(max_size=60))
def test_no_query_string_is_a_crash(query):
    with pytest.raises(SignatureMismatchError):
        Signer(KEY).check("PUT", PATH, query, HEADERS, 0)


def test_no_text_can_move_from_one_field_to_another():
    signer = Signer(KEY)
    query = signer.sign("GET", "/a", EXPIRES, {"accept": "1"})
    signature = dict(parse_qsl(query))["X-Signature"]
    moved = [("X-Expires", f"{EXPIRES}\naccept\naccept:1"), ("X-SignedHeaders", ""), ("X-Signature", signature)]
    with pytest.raises(SignatureMismatchError):
        signer.check("GET", "/a", urlencode(moved), {}, 0)
