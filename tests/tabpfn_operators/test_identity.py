"""The fingerprint of a fit, and who pays for it: equal wherever it is made, and no secret."""

import base64
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabpfn_assets import FitParameters, Thinking
from tabpfn_operators.errors import ConfigurationError
from tabpfn_operators.identity import account_identity, fit_fingerprint

ADVICE = (
    "A fingerprint changed: fits that versions in use have paid for would not be found again. "
    'If that is meant, raise "v" in what is hashed, say so in CHANGELOG.md, and only then change this table.'
)
SOURCE = "77e5331550ccdcc700c4e6ae38bca23fd1239f6bfa2089d9f3322b52085696c5"
API = "https://api.priorlabs.ai"
TOKEN = "sk-canary-0123456789"

# What differs from the first, and the fingerprint.
FITS = {
    "standard": ({}, "bf9b19509590c5dc21bf56584ebb94eafa5ec682a97369484521c933cc17b3f7"),
    "regression": ({"task": "regression"}, "591870034ed2a797b3c9151a6e201816e916efc7a26b188db1b865c43c91183a"),
    "without the account": ({"account": None}, "cb4c8b6f2ab73a20678e0b40e394e38a8af08984b39df7af2e0aa3fcc2f47911"),
    "another account": (
        {"account": "label finance"},
        "c69482603c56ee7cff4652c9f8ed13b1e0b810beaacdf9d3cbf15911417d03ec",
    ),
    "another server": (
        {"api_url": "http://127.0.0.1:8000"},
        "2f0696127b40b1e6e29a2a0357ba20b2a95d8e4598e6efab9f22d1d608e84aca",
    ),
    "another source": ({"source": SOURCE[::-1]}, "9660345e2b6893d3cd06bafcf40563f33425af1505be58d915f76d40c0b1dea6"),
    "config": (
        {"config": {"n_estimators": 4, "random_state": 0, "größe": [1.5, None, True]}},
        "a5b00e4c95778116e06d87d7f17b7e12ed0217368365f31494d43d8319fd55c4",
    ),
    "nested config": (
        {"config": {"inference_config": {"SUBSAMPLE_SAMPLES": 0.5, "A": {"b": "c"}}}},
        "1510cee76c3455efc87d2491c5612030f94fe85f6df0e692992c25ccd47ce8fc",
    ),
    "no systems": ({"systems": ()}, "63b531b7a2541767b34538f3a708b96fa99c7cade91ff1583a747545d68a9910"),
    "one system": ({"systems": ("text",)}, "33b1a5dee650c9be20d2a1418c38224dd3ab989a110d1e53613266e02307dda1"),
    "text handling": ({"text_handling": "simple"}, "014d87b9d02f15175814fcc8819b16e88138fb50152add48569dc17092e61bae"),
    "thinking": ({"thinking": Thinking()}, "b1138810ce823bc63e03dc980db04c3ad498a5aaa69725e0edf6b6e108787bc3"),
    "thinking hard": (
        {"thinking": Thinking(effort="high", timeout_secs=600, metric="log_loss", group_col="customer")},
        "ce26801f217d3caa2187ce263faf109322294bc57258e112cec3b710fc542b5b",
    ),
}
ACCOUNTS = {
    "label": ("finance", TOKEN, "label finance"),
    "token": (None, TOKEN, "token 782a873f91fd258b"),
    "subject": (None, "header.eyJzdWIiOiAidXNlci00NzExIn0.signature", "subject 85e8cbcc4fab8df4"),
}


def fingerprint(**changes):
    given_facts = {"source": SOURCE, "api_url": API, "account": "label pinned", **changes}
    facts = {name: given_facts.pop(name) for name in ("source", "api_url", "account")}
    parameters = FitParameters.model_validate({"task": "classification", **given_facts})
    return fit_fingerprint(facts["source"], parameters, api_url=facts["api_url"], account=facts["account"])


def jwt(claims):
    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'HS256'})}.{part(claims)}.c2lnbmF0dXJl"


# Pinned


@pytest.mark.parametrize("name", FITS)
def test_the_fingerprint_of_a_fit_stays(name):
    changes, pinned = FITS[name]
    assert fingerprint(**changes) == pinned, ADVICE


def test_whatever_differs_shows():
    assert len({fingerprint(**changes) for changes, _ in FITS.values()}) == len(FITS)


@pytest.mark.parametrize("name", ACCOUNTS)
def test_the_identity_of_an_account_stays(name):
    label, token, pinned = ACCOUNTS[name]
    assert account_identity(label, token) == pinned, ADVICE


@pytest.mark.parametrize("seed", ["0", "1", "4711"])
def test_another_process_makes_the_same(seed):
    code = (
        f"import runpy; here = runpy.run_path({__file__!r}); "
        "print(*(here['fingerprint'](**changes) for changes, _ in here['FITS'].values()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": "C", "TZ": "Asia/Kolkata"},
    )
    assert done.stdout.split() == [pinned for _, pinned in FITS.values()], ADVICE


# What counts and what does not

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
configs = st.dictionaries(st.text().filter(lambda key: key != "n_estimators"), json_values, max_size=5)
systems = st.lists(st.sampled_from(["preprocessing", "text"]), unique=True)
parameters = st.fixed_dictionaries(
    {"task": st.sampled_from(["classification", "regression"])},
    optional={
        "config": configs,
        "systems": systems,
        "text_handling": st.sampled_from([None, "advanced", "simple"]),
        "thinking": st.none()
        | st.fixed_dictionaries(
            {},
            optional={
                "effort": st.sampled_from(["medium", "high"]),
                "timeout_secs": st.floats(1, 2400),
                "metric": st.sampled_from(["log_loss", "rmse"]),
                "time_col": st.text(min_size=1),
            },
        ),
    },
)


def reversed_keys(value):
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return [reversed_keys(item) for item in value] if isinstance(value, list) else value


@given(parameters)
def test_no_order_counts(asked):
    turned = reversed_keys(asked) | ({"systems": asked["systems"][::-1]} if "systems" in asked else {})
    assert fingerprint(**turned) == fingerprint(**asked)


@given(parameters)
def test_the_way_through_json_changes_nothing(asked):
    """Parameters come back from records, XCom and queues."""
    there = FitParameters.model_validate(asked)
    back = FitParameters.model_validate_json(there.model_dump_json())
    assert fit_fingerprint(SOURCE, back, api_url=API, account=None) == fit_fingerprint(
        SOURCE, there, api_url=API, account=None
    )


@given(parameters, parameters)
def test_equal_fingerprints_are_of_equal_requests(one, other):
    def meant(asked):
        full = FitParameters.model_validate(asked).model_dump(mode="json")
        full["systems"] = sorted(full["systems"])
        full["config"] = {key: value for key, value in full["config"].items() if value is not None}
        return json.dumps(full, sort_keys=True)

    assert (fingerprint(**one) == fingerprint(**other)) == (meant(one) == meant(other))


@given(configs, st.text().filter(lambda key: key != "n_estimators"))
def test_a_setting_that_is_none_is_not_there(config, key):
    """The server gets no such key either."""
    config.pop(key, None)
    assert fingerprint(config={**config, key: None}) == fingerprint(config=config)


def test_what_is_spelled_out_at_its_default_leaves_no_trace():
    spelled = {"config": {}, "systems": ("text", "preprocessing"), "text_handling": None, "thinking": None}
    assert fingerprint(**spelled) == fingerprint()
    spelled = {"effort": "medium", "timeout_secs": None, "metric": None, "group_col": None, "time_col": None}
    assert fingerprint(thinking=spelled) == fingerprint(thinking=Thinking())


def test_a_system_that_is_named_twice_counts_once():
    assert fingerprint(systems=("text", "text")) == fingerprint(systems=("text",))


def test_a_tuple_is_the_list_that_is_sent():
    assert fingerprint(config={"a": (1, 2)}) == fingerprint(config={"a": [1, 2]})


def circle():
    config = {}
    config["itself"] = config
    return config


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"seed": {1, 2}}, "set"),
        ({"seed": object()}, "object"),
        ({"seed": b"\x00"}, "bytes"),
        ({"rate": float("nan")}, "float"),
        ({"rate": float("inf")}, "float"),
        ({"inner": {1: "a", "b": 2}}, "str"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_json_cannot_hold_is_refused(config, named):
    with pytest.raises(ConfigurationError, match=r"config holds what JSON cannot: .*\. Use numbers") as caught:
        fingerprint(config=config)
    assert named in str(caught.value).lower()
    assert "0x" not in str(caught.value)


def test_a_config_that_holds_itself_is_refused():
    with pytest.raises(ConfigurationError, match="config holds what JSON cannot"):
        fit_fingerprint(
            SOURCE, FitParameters(task="regression").model_copy(update={"config": circle()}), api_url=API, account=None
        )


# Accounts


@given(st.text(), st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
def test_a_label_outlives_the_key(label, token):
    assert account_identity(label, token) == f"label {label}"


def test_a_new_key_is_the_same_subject():
    old, new = (jwt({"sub": "user-4711", "iat": issued}) for issued in (1, 2))
    assert old != new
    assert account_identity(None, old) == account_identity(None, new)
    assert account_identity(None, old) != account_identity(None, jwt({"sub": "user-4712", "iat": 1}))


def test_no_two_kinds_of_identity_meet():
    token = "abc"
    same = [account_identity(token, token), account_identity(None, token), account_identity(None, jwt({"sub": token}))]
    assert len({identity.partition(" ")[2] for identity in same}) <= len(set(same)) == 3


@pytest.mark.parametrize(
    "token",
    [
        "opaque",
        "two.parts",
        "a.b.c",
        "a.!!!.c",
        "...",
        "a.é.c",
        jwt({"sub": ""}),
        jwt({"sub": 4711}),
        jwt({"email": "a@example.com"}),
        jwt(["sub"]),
        jwt(None),
        "a." + base64.urlsafe_b64encode(b"\xff\xfe").decode() + ".c",
        "a." + base64.urlsafe_b64encode(b"[" * 100_000).decode() + ".c",
    ],
    ids=lambda token: token[:24],
)
def test_any_other_token_is_known_by_its_hash(token):
    identity = account_identity(None, token)
    assert identity.startswith("token ")
    assert identity != account_identity(None, token + "x")


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
def test_no_token_breaks_it(token):
    kind, digest = account_identity(None, token).split(" ")
    assert kind in {"token", "subject"}
    assert len(bytes.fromhex(digest)) == 8


@pytest.mark.parametrize("token", [TOKEN, jwt({"sub": "user-4711", "email": "someone@example.com"})])
def test_no_identity_holds_the_token(token):
    identity = account_identity(None, token)
    assert not any(token[i : i + 6] in identity for i in range(len(token) - 5))
    assert "4711" not in identity.partition(" ")[0]
    assert "user" not in identity


def test_a_new_key_changes_the_account_and_not_the_work():
    old, new = (account_identity(None, token) for token in (TOKEN, TOKEN + "-rotated"))
    assert fingerprint(account=old) != fingerprint(account=new)
    assert fingerprint(account=None) not in {fingerprint(account=old), fingerprint(account=new)}
