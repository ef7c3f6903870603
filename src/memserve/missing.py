"""What an extra of memserve installs: imported, or else the error that says which command installs it."""

from importlib import import_module
from typing import Any

from memserve.errors import BackendMissing


def install_line(extra: str) -> str:
    """The command that installs an extra."""
    return f'pip install "memserve[{extra}]"'


def release_of(package: str) -> str | None:
    """The installed release of a distribution, or None; imports nothing of it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def missing(backend: str, needs: str, extra: str | None = None) -> BackendMissing:
    """The error of an engine, or of a part of it, that is not installed; the extra has the backend's name."""
    return BackendMissing(backend, needs=needs, install=install_line(extra or backend))


def need(backend: str, module: str, package: str | None = None) -> Any:
    """A module; where it is not installed, `BackendMissing` names its package and the install line."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        found = (error.name or module).partition(".")[0]
        own = found == module.partition(".")[0]
        raise missing(backend, (package or found) if own else f"{found} (for {module})") from error
    except ImportError as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise missing(backend, f"a {package or module} that loads ({why[:200]})") from error
