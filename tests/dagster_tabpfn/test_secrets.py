"""The token is in no event, no snapshot, no log and no repr."""

import sqlite3
import zlib
from pathlib import Path

import dagster as dg
import pytest

from dagster_tabpfn import TabPFNResource
from tabpfn_operators.errors import ConfigurationError


def everything_stored(root):
    """All bytes of an instance; Dagster compresses snapshots inside SQLite, so that a plain grep would not see them."""
    texts = []
    for path in Path(root).rglob("*"):
        if path.is_file():
            texts.append(path.read_bytes())
        if path.suffix == ".db":
            with sqlite3.connect(path) as database:
                tables = [row[0] for row in database.execute("select name from sqlite_master where type = 'table'")]
                cells = [
                    cell for table in tables for row in database.execute(f"select * from '{table}'") for cell in row
                ]
            database.close()
            texts += [unpacked(cell) for cell in cells]
    return b"\n".join(texts)


def unpacked(cell):
    if not isinstance(cell, bytes):
        return str(cell).encode()
    try:
        return zlib.decompress(cell)
    except zlib.error:
        return cell


@pytest.mark.parametrize("fault", [None, {"kind": "status", "status": 401, "times": None}, {"kind": "fail_fit"}])
def test_no_run_stores_or_logs_the_token(build, stored_instance, control, token, capfd, caplog, fault):
    if fault:
        control.inject(fault)

    result = build().materialize(stored_instance)

    assert result.success is (fault is None)
    stored = everything_stored(stored_instance.root_directory)
    assert b'\\"env\\": \\"TABPFN_TOKEN\\"' in stored, "the scan must see where a literal token would be"
    assert token.encode() not in stored
    logged = capfd.readouterr()
    assert "Train set" in logged.err or fault is not None
    assert token not in logged.out + logged.err + caplog.text


def test_a_literal_token_is_refused(emulator):
    resource = TabPFNResource(token="literal-secret", base_url=emulator)

    with pytest.raises(ConfigurationError, match="EnvVar") as raised:
        dg.Definitions(resources={"tabpfn": resource}).get_repository_def()

    assert "literal-secret" not in str(raised.value)


def test_a_literal_proxy_with_a_password_is_refused():
    with pytest.raises(ConfigurationError, match="proxy"):
        dg.Definitions(resources={"tabpfn": TabPFNResource(proxy="http://u:pw@proxy:1")}).get_repository_def()


def test_a_proxy_without_a_password_may_be_literal():
    defs = dg.Definitions(resources={"tabpfn": TabPFNResource(proxy="http://proxy:1")})

    dg.Definitions.validate_loadable(defs)


def test_secrets_are_masked_in_the_schema_and_absent_from_the_repr():
    fields = TabPFNResource.to_config_schema().as_field().config_type.fields

    assert {name for name, field in fields.items() if field.is_secret} == {"token", "proxy"}
    shown = repr(TabPFNResource(token="literal-secret", proxy="http://u:pw@proxy:1"))
    assert "literal-secret" not in shown
    assert "pw" not in shown


def test_outside_a_run_the_resource_opens_and_closes_a_client(emulator, token):
    resource = TabPFNResource(token=dg.EnvVar("TABPFN_TOKEN"), base_url=emulator)

    with resource.process_config_and_initialize_cm() as opened:
        assert opened.get_client() is opened.get_client()
        assert opened.get_client().check_token() is None
        assert opened.get_client().settings.user_agent == f"dagster/{dg.__version__}"
