"""An S3 server on this machine, and clients of it that know nothing of one another."""

import os
import threading
import uuid

import pytest
from hypothesis import settings

settings.register_profile("tabpfn", derandomize=True, deadline=None)
settings.load_profile("tabpfn")


@pytest.fixture(scope="session")
def s3_url():
    """Address of moto's S3 server, which lives as long as the session."""
    from moto.s3 import responses
    from moto.server import ThreadedMotoServer

    put, one_at_a_time = responses.S3Response.put_object, threading.Lock()

    def put_object(self, *arguments, **options):
        # S3 decides a conditional PUT in one step; moto looks, then writes, and on a busy machine lets two win.
        with one_at_a_time:
            return put(self, *arguments, **options)

    responses.S3Response.put_object = put_object
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
    responses.S3Response.put_object = put


@pytest.fixture(autouse=True)
def no_account_of_this_machine(monkeypatch, tmp_path):
    """No test finds credentials or settings of the person who runs it, nor asks a metadata service for them."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "FSSPEC_")):
            monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "BOTO_CONFIG"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def options(s3_url):
    """fsspec options of a first client."""
    return {
        "key": "a-key",
        "secret": "a-secret",
        "client_kwargs": {"endpoint_url": s3_url, "region_name": "eu-central-1"},
    }


@pytest.fixture
def second(options):
    """Another client, as another process would have it."""
    import s3fs

    return s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False, **options)


@pytest.fixture
def bucket(second):
    """URL of an empty bucket of this test's own; it goes with the server."""
    name = f"b-{uuid.uuid4().hex}"
    second.mkdir(name)
    return f"s3://{name}"
