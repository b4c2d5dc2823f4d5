"""Names that become part of a path, and URLs without what is secret."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from tabpfn_assets import Name, SourceRef, public_url

NAMES = TypeAdapter(Name)
SECRET = "Sh5Sup3rS3cretKeyZ"
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


@pytest.mark.parametrize("name", ["a", "churn", "churn-v2.1", "_x", "-", "a" * 128, "A.B_c-9", "0"])
def test_plain_names_are_taken(name):
    assert NAMES.validate_python(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".hidden", "a/b", "a\\b", "../x", "a b", "a\n", "\na", "a" * 129, "größe", "a%2fb", "a:b", "a\x00"],
)
def test_names_that_move_a_path_are_not(name):
    with pytest.raises(ValidationError):
        NAMES.validate_python(name)


@given(st.text())
def test_a_name_is_one_path_segment(text):
    try:
        name = NAMES.validate_python(text)
    except ValidationError:
        return
    assert set(name) <= set(ALPHABET + "._-")
    assert not name.startswith(".")
    assert 1 <= len(name) <= 128


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("s3://bucket/a/b.parquet", "s3://bucket/a/b.parquet"),
        (f"s3://AKIA:{SECRET}@bucket/a.parquet", "s3://bucket/a.parquet"),
        (f"s3://{SECRET}@bucket/a.parquet", "s3://bucket/a.parquet"),
        (f"s3://AKIA:1/{SECRET}@bucket/a.parquet", "s3://bucket/a.parquet"),
        ("https://host:8443/pkg@1.0/a.parquet", "https://host:8443/pkg@1.0/a.parquet"),
        (f"https://host:8443/a.parquet?X-Amz-Signature={SECRET}", "https://host:8443/a.parquet"),
        (f"https://host/a.parquet?sig={SECRET}&se=1#part", "https://host/a.parquet"),
        (f"https://user:{SECRET}@host:8443/a.parquet", "https://host:8443/a.parquet"),
        (f"https://host/a.parquet#{SECRET}", "https://host/a.parquet"),
        ("abfs://container@account.dfs.core.windows.net/a", "abfs://container@account.dfs.core.windows.net/a"),
        (f"abfs://container:{SECRET}@account/a", "abfs://account/a"),
        (f"simplecache::s3://AKIA:{SECRET}@bucket/a", "simplecache::s3://bucket/a"),
        (f"zip://in.parquet::https://host/a.zip?sig={SECRET}", "zip://in.parquet::https://host/a.zip"),
        ("/data/what?.parquet", "/data/what?.parquet"),
        ("data/#1.parquet", "data/#1.parquet"),
        ("file:///data/#1.parquet", "file:///data/#1.parquet"),
        ("memory://a/b", "memory://a/b"),
        ("https://[::1]:8443/a", "https://[::1]:8443/a"),
    ],
)
def test_public_url(url, public):
    assert public_url(url) == public
    assert SourceRef(uris=(url,), rows=1).uris == (public,)


# Secret keys of object stores are base64: '/' and '+' are common, and people paste them unquoted.
KEYS = st.text(ALPHABET + "/+=", min_size=8, max_size=40).map(lambda key: "k" + key + SECRET)
HOSTS = st.sampled_from(["bucket", "my-bucket", "account.blob.core.windows.net", "host.example:8443"])
PATHS = st.text(ALPHABET + "/._- ", max_size=20)


@given(
    scheme=st.sampled_from(["s3", "s3a", "gs", "gcs", "az", "https", "http", "ftp", "sftp", "S3"]),
    user=st.none() | st.text(ALPHABET, min_size=1, max_size=20),
    key=KEYS,
    host=HOSTS,
    path=PATHS,
)
def test_user_info_never_stays(scheme, user, key, host, path):
    user_info = key.replace("/", "%2F") if user is None else f"{user}:{key}"
    shown = public_url(f"{scheme}://{user_info}@{host}/{path}")
    assert SECRET not in shown
    assert shown == f"{scheme.lower()}://{host}/{path}"


@given(
    scheme=st.sampled_from(["https", "http", "s3", "abfs", "gs"]),
    name=st.sampled_from(["sig", "X-Amz-Signature", "X-Goog-Signature", "token", "sv"]),
    key=KEYS,
    mark=st.sampled_from(["?", "#", "?a=b&", "?a#"]),
    host=HOSTS,
    path=PATHS,
    chain=st.sampled_from(["", "simplecache::", "filecache::", "zip://a.parquet::"]),
)
def test_query_and_fragment_never_stay(scheme, name, key, mark, host, path, chain):
    shown = public_url(f"{chain}{scheme}://{host}/{path}{mark}{name}={key}")
    assert SECRET not in shown
    assert shown == f"{chain}{scheme}://{host}/{path}"


@given(st.text(max_size=60).filter(lambda text: "://" not in text))
def test_a_plain_path_stays_as_it_is(path):
    assert public_url(path) == path


@given(st.sampled_from(["s3://", "https://", "abfs://", "x::s3://"]), st.text(max_size=60))
def test_no_url_makes_it_fail_and_twice_is_once(start, rest):
    shown = public_url(start + rest)
    assert public_url(shown) == shown
