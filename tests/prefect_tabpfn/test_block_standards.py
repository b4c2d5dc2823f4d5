"""Prefect's own standard suite for blocks, with the packaged logo served over loopback."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from urllib.request import urlopen

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites import BlockStandardTestSuite
from prefect.testing.standard_test_suites import blocks as suite
from prefect.utilities.dispatch import get_registry_for_type

import prefect_tabpfn

PACKAGE = Path(prefect_tabpfn.__file__).parent


def our_blocks() -> list[type[Block]]:
    registry = get_registry_for_type(Block) or {}
    return [block for block in registry.values() if block.__module__.startswith("prefect_tabpfn.")]


def test_the_suite_below_runs_on_our_block():
    assert [block.__name__ for block in our_blocks()] == ["TabPFNCredentials"]
    assert suite.HAS_PIL, "without Pillow, Prefect skips the logo test"


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        return None


@pytest.fixture
def served_logo(monkeypatch) -> Iterator[None]:
    """Answer the logo's address with a picture of this folder, over a real HTTP server: tests reach no other host."""
    handler = partial(_QuietHandler, directory=str(Path(__file__).parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        def open_on_loopback(url: str):
            assert url.startswith("https://")
            # Prefect's test leaves what it gets open: bytes, not a socket that is found unclosed at the very end.
            with urlopen(f"http://127.0.0.1:{server.server_port}/logo.png") as answer:
                return BytesIO(answer.read())

        monkeypatch.setattr(suite, "urlopen", open_on_loopback)
        yield
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("served_logo")
@pytest.mark.parametrize("block", our_blocks(), ids=lambda block: block.__name__)
class TestBlockStandards(BlockStandardTestSuite):
    @pytest.fixture
    def block(self, block):
        return block
