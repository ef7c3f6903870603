"""Which distributions are installed beside the engine."""

from importlib.metadata import PackageNotFoundError, version


def present(package: str) -> str | None:
    """The installed version of a distribution, or None; imports nothing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
