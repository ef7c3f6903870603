"""What an extra of memserve installs: imported, or else the error that says which command installs it."""

from contextlib import suppress
from importlib import import_module
from typing import Any

from memserve import files, registry
from memserve.errors import BackendMissing


def install_line(extra: str = "") -> str:
    """The command that installs memserve, with an extra, from where it came: a checkout, or the index."""
    return f"pip install {requirement(extra)}"


def requirement(extra: str) -> str:
    """This memserve, with an extra if any, as such a command names it."""
    edits, name, address = origin()
    return f'{edits}"{name}{f"[{extra}]" if extra else ""}{address}"'


@registry.remembered
def origin() -> tuple[str, str, str]:
    """What pip installed memserve from: `-e ` for a checkout in work, folder or name, and ` @ URL`.

    Not through importlib.metadata: plans print such lines, and its import costs an eighth of one.
    """
    import json

    said: dict[str, Any] = {}
    for folder in registry.metadata_folders():
        if folder.rpartition("/")[2].startswith("memserve-"):
            with suppress(OSError, ValueError):
                said = json.loads(files.text(f"{folder}/direct_url.json"))
            break
    url = str(said.get("url", ""))
    if url.startswith("file://"):
        edits = "-e " if said.get("dir_info", {}).get("editable") else ""
        return edits, _plain(url.removeprefix("file://")), ""
    kind = said.get("vcs_info", {}).get("vcs")
    return "", "memserve", f" @ {kind}+{url}" if kind else f" @ {url}" if url else ""


def _plain(path: str) -> str:
    if "%" not in path:
        return path
    from urllib.parse import unquote

    return unquote(path)


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
