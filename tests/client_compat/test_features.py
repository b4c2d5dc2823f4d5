"""Which version is tested, and that what is skipped is truly not there."""

import importlib
import inspect
from importlib.metadata import version
from operator import attrgetter


def has(place):
    module, _, path = place.partition(":")
    path, _, parameter = path.partition("?")
    try:
        found = attrgetter(path)(importlib.import_module(module))
    except AttributeError:
        return False
    return not parameter or parameter in inspect.signature(found).parameters


def test_a_version_lacks_what_is_skipped_and_nothing_else(client, lacks):
    installed = version("tabpfn-client")
    assert {feature: has(place) for features in lacks.values() for feature, place in features.items()} == {
        feature: feature not in lacks[installed] for features in lacks.values() for feature in features
    }


def test_the_package_is_the_published_one(client):
    from importlib.metadata import distribution

    assert distribution("tabpfn-client").read_text("direct_url.json") is None
    assert "site-packages" in client.__file__
