"""Versions of the packages that took part, for lineage."""

from importlib.metadata import PackageNotFoundError, version

from tabpfn_assets import __version__

_NOTED = ("pyarrow", "fsspec", "httpx", "pydantic")


def package_versions() -> dict[str, str]:
    """Return this package's version and those of the libraries that touch the data."""
    versions = {"tabpfn-providers": __version__}
    for name in _NOTED:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # vendored or frozen applications carry no metadata
            continue
    return versions
