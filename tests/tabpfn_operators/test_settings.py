"""Settings: where a token and an address come from, and which are refused."""

import pickle

import pytest

from tabpfn_operators import Client, Settings
from tabpfn_operators.errors import ConfigurationError

SECRET = "sk-S3cretS3cretS3cret"


def test_the_token_argument_wins_then_the_vendors_variable_then_the_other(monkeypatch):
    monkeypatch.setenv("PRIORLABS_API_KEY", "from-priorlabs")
    assert Settings.resolve().bearer() == "from-priorlabs"
    monkeypatch.setenv("TABPFN_TOKEN", "from-tabpfn")
    assert Settings.resolve().bearer() == "from-tabpfn"
    assert Settings.resolve("from-argument").bearer() == "from-argument"


def test_an_empty_variable_counts_as_unset(monkeypatch):
    monkeypatch.setenv("TABPFN_TOKEN", "")
    monkeypatch.setenv("PRIORLABS_API_KEY", "from-priorlabs")
    assert Settings.resolve().bearer() == "from-priorlabs"


def test_the_base_url_argument_wins_then_the_variable_then_the_vendors(monkeypatch):
    assert Settings.resolve(SECRET).base_url == "https://api.priorlabs.ai"
    monkeypatch.setenv("TABPFN_API_URL", "https://from.environment/")
    assert Settings.resolve(SECRET).base_url == "https://from.environment"
    assert Settings.resolve(SECRET, base_url="https://from.argument/v2//").base_url == "https://from.argument/v2"


def test_a_token_function_is_asked_anew_each_time():
    tokens = iter(["first", "second"])
    settings = Settings.resolve(lambda: next(tokens))
    assert [settings.bearer(), settings.bearer()] == ["first", "second"]


def test_a_line_end_after_a_pasted_token_is_dropped():
    assert Settings.resolve(f" {SECRET}\n").bearer() == SECRET


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (None, "No TabPFN token"),
        ("", "token is empty"),
        ("  ", "token is empty"),
        ("*****", "masked"),
        ("two words", "characters that no API key has"),
        ("größe", "characters that no API key has"),
        ("a\x00b", "characters that no API key has"),
        ("a\r\nx-evil: 1", "characters that no API key has"),
    ],
)
def test_a_token_that_cannot_be_one_is_refused(token, words):
    with pytest.raises(ConfigurationError, match=words):
        Settings.resolve(token)


def test_a_token_functions_answer_is_checked_too():
    with pytest.raises(ConfigurationError, match="the token function's answer is empty"):
        Settings.resolve(lambda: "").bearer()


@pytest.mark.parametrize(
    "url",
    [
        "https://api.priorlabs.ai",
        "http://127.0.0.1:8000",
        "http://localhost:8000",
        "http://LOCALHOST",
        "http://[::1]:8000",
        "https://proxy.example/tabpfn",
    ],
)
def test_addresses_that_are_taken(url):
    assert Settings.resolve(SECRET, base_url=url).base_url == url


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://api.priorlabs.ai", "would send the token unencrypted"),
        ("http://localhost.evil.example", "would send the token unencrypted"),
        ("http://127.0.0.1.evil.example", "would send the token unencrypted"),
        ("http://0.0.0.0:8000", "would send the token unencrypted"),
        ("api.priorlabs.ai", "must be a whole URL"),
        ("ftp://api.priorlabs.ai", "must be a whole URL"),
        ("https://", "must be a whole URL"),
        ("https://[::1", "must be a whole URL"),
        ("https://host:port", "must be a whole URL"),
        ("https://host:99999", "must be a whole URL"),
        (f"https://user:{SECRET}@host", "must not hold user info"),
        (f"https://{SECRET}@host", "must not hold user info"),
        (f"https://host/?token={SECRET}", "must not hold user info or a query"),
        (f"https://host/#{SECRET}", "must not hold"),
    ],
)
def test_addresses_that_are_refused(url, words):
    with pytest.raises(ConfigurationError, match=words) as caught:
        Settings.resolve(SECRET, base_url=url)
    assert SECRET not in str(caught.value)
    assert "base_url" in str(caught.value)


def test_plain_http_can_be_allowed():
    settings = Settings.resolve(SECRET, base_url="http://gateway.internal", allow_http=True)
    assert settings.base_url == "http://gateway.internal"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"wire": "round"}, "wire"),
        ({"connect_timeout": 0}, "connect_timeout"),
        ({"read_timeout": -1}, "read_timeout"),
        ({"read_timeout": float("inf")}, "read_timeout"),
        ({"tocken": SECRET}, "tocken"),
        ({"proxy": f"user:{SECRET}@proxy:3128"}, "proxy"),
        ({"proxy": f"gopher://user:{SECRET}@proxy"}, "proxy"),
    ],
)
def test_a_setting_that_is_not_usable_is_named(options, words):
    with pytest.raises(ConfigurationError, match=words) as caught:
        Settings.resolve(SECRET, **options)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_none_means_the_default():
    assert Settings.resolve(SECRET, proxy=None, account=None, wire=None) == Settings.resolve(SECRET)


def test_no_text_of_settings_holds_a_secret():
    settings = Settings.resolve(SECRET, proxy=f"http://user:{SECRET}@proxy:3128")
    client = Client(SECRET, base_url="https://host")
    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()} {client!r} {vars(client)}"
    assert SECRET not in shown


def test_a_secret_in_no_settings_error_of_a_pickle():
    with pytest.raises(ConfigurationError) as caught:
        Client(SECRET, base_url="http://far.example")
    assert SECRET.encode() not in pickle.dumps(caught.value)


def test_a_missing_ca_bundle_is_named_at_the_first_call():
    client = Client(SECRET, base_url="https://127.0.0.1:9", verify="/nowhere/ca.pem")
    with pytest.raises(ConfigurationError, match=r"/nowhere/ca\.pem"):
        client.check_token()
