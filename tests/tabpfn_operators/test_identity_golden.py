"""Fingerprints, digit by digit: equal on every machine, in every process, with every version of what is installed."""

import os
import subprocess
import sys

import pytest

from tabpfn_operators.storage import described, source_fingerprint

ADVICE = (
    "A fingerprint changed: what versions in use have fitted would not be found again, and be paid for twice. "
    'If that is meant, raise "v" in what is hashed, say so in CHANGELOG.md, and only then change this table.'
)
FOOTER = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
OTHER_FOOTER = "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752"
S3 = {"size": 10_000, "ETag": '"9b2cf535f27731c974343645a3985328"', "LastModified": "2026-11-21 12:00:00+00:00"}
S3_OTHER = {**S3, "ETag": '"0cc175b9c0f1b6a831c399e269772661"'}
S3_VERSION = {**S3, "VersionId": "3HL4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY"}
GCS = {"size": 10_000, "generation": "1795262400250000", "md5Hash": "CY9rzUYh03PK3k6DJie09g==", "etag": "CJ=="}
LOCAL = {"size": 10_000, "mtime": 1_795_262_400.25, "created": 1_795_262_300.0, "ino": 4711}


def stored(info, partitions=()):
    """An object as its storage describes it."""
    return described(None, "lake/train.parquet", "s3://lake/train.parquet", {"type": "file", **info}, partitions)


# What differs from the first, and the fingerprint.
SOURCES = {
    "s3": ({}, "77e5331550ccdcc700c4e6ae38bca23fd1239f6bfa2089d9f3322b52085696c5"),
    "s3 with versions": (
        {"objects": [stored(S3_VERSION)]},
        "e795eb346b4d4464cef953f6d5df3bab678eb6e2c2abef0f7cac43e90fae8e4f",
    ),
    "google": ({"objects": [stored(GCS)]}, "d87f005753312dcbbed5613ae8ed15ac3933d7b61665bdea1c8a99c391e0a645"),
    "local": ({"objects": [stored(LOCAL)]}, "a59bb50e30e2df5de1a175607cacd4d813fb21f9b5f224cdf80370329ef5eeb4"),
    "only the size is known": (
        {"objects": [stored({"size": 10_000})]},
        "d27bba6a775e2c5a14676b7498fad75c41d16499d2c35fcfaee5315961f91041",
    ),
    "two files": (
        {"objects": [stored(S3), stored(S3_OTHER)], "digests": [FOOTER, OTHER_FOOTER]},
        "6503ec6f04ae8c7c90d58741029141041ce804ed510b4f6d05ee1f94e52f44cb",
    ),
    "partitions": (
        {"objects": [stored(S3, (("day", "7"), ("country", None)))]},
        "778182642cf53b37ca83951195f64f55abcf9b72a2b757280847bfc3f4909322",
    ),
    "a table in memory": (
        {"objects": [], "digests": [OTHER_FOOTER]},
        "82ab06b2a91446eb41b398b60e9aa5079a508ba8079969b8c6e54aa2cea730fa",
    ),
    "other columns": (
        {"columns": ["größe", "age"]},
        "03b0321068eb74261f72698a987008f2b8f75f233eba519f3606af0ad964d957",
    ),
    "another target": ({"target": "größe"}, "312f4d16f253d5cb2cd70c03ec877eb7e7c8148656c1297259502b4f58f33738"),
    "a test set": ({"target": None}, "acc1a3ab961ea89604589384bf5e8ade6cf0f9bc11ca24968470289a94954ac7"),
    "a filter": (
        {"refinement": '[["age", ">", 30]]'},
        "891a23d1e4d78987c90622854a7037bbb5da5ba4d98f9b86308bea38bf9cd636",
    ),
}


def fingerprint(objects=None, digests=(FOOTER,), columns=("age", "größe"), target="churned", **options):
    objects = [stored(S3)] if objects is None else objects
    return source_fingerprint(objects, digests, columns, target, **options)


@pytest.mark.parametrize("name", SOURCES)
def test_the_fingerprint_of_a_source_stays(name):
    changes, pinned = SOURCES[name]
    assert fingerprint(**changes) == pinned, ADVICE


def test_other_data_has_another_fingerprint():
    assert len({fingerprint(**changes) for changes, _ in SOURCES.values()}) == len(SOURCES)


def test_a_time_counts_only_where_nothing_better_is_known():
    touched = {**S3, "LastModified": "2027-01-01 00:00:00+00:00"}
    assert fingerprint([stored(touched)]) == fingerprint()
    touched = {**LOCAL, "mtime": LOCAL["mtime"] + 1}
    assert fingerprint([stored(touched)]) != fingerprint([stored(LOCAL)])


@pytest.mark.parametrize("seed", ["0", "4711"])
def test_another_process_makes_the_same(seed):
    code = f"import runpy; print(runpy.run_path({__file__!r})['fingerprint']())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": "C", "TZ": "Asia/Kolkata"},
    )
    assert done.stdout.strip() == SOURCES["s3"][1]
