"""The environment of an engine: its Python, made from a plan's install line once; and its variables."""

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from memserve.engines.command import shown
from memserve.errors import EngineFailed, InvalidInput

_DONE = ".memserve-complete"
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*=")
_INSTALLERS = (["pip", "install"], ["uv", "pip", "install"], ["python", "-m", "pip", "install"])


def home() -> Path:
    """Where environments are kept: $MEMSERVE_ENVIRONMENTS, or the user's cache."""
    named = os.environ.get("MEMSERVE_ENVIRONMENTS")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named) if named else cache / "memserve" / "environments"


def requirements(install: str) -> tuple[dict[str, str], list[str]]:
    """The variables and the packages of an install line; what is none is refused, since it would be run."""
    try:
        words, variables = shlex.split(install), {}
    except ValueError as error:
        raise InvalidInput(f"the install line cannot be read: {error}", hint="close every quote") from None
    while words and _VARIABLE.match(words[0]):
        name, _, value = words.pop(0).partition("=")
        variables[name] = value
    for installer in _INSTALLERS:
        if words[: len(installer)] == installer:
            return variables, words[len(installer) :]
    raise InvalidInput(f"not an install line: {install[:120]!r}", hint="it begins with pip install")


def make(install: str, *, folder: Path | None = None, python: str | None = None,
         report: Callable[[str], None] = print) -> Path:  # fmt: skip
    """The interpreter of an environment with those packages; made only if it is not there yet."""
    variables, wanted = requirements(install)
    place = folder or _place(install, python)
    interpreter = place / "bin" / "python"
    if (place / _DONE).exists():
        return interpreter
    if place.exists():
        shutil.rmtree(place)  # a run before this one was interrupted
    place.parent.mkdir(parents=True, exist_ok=True)
    for command in _steps(place, wanted, python):
        report("$ " + shown(command))
        _run(command, variables)
    (place / _DONE).write_text(install + "\n", encoding="utf-8")
    return interpreter


def is_made(install: str) -> bool:
    """Whether that environment is there already."""
    return (_place(install, None) / _DONE).exists()


def _place(install: str, python: str | None) -> Path:
    variables, wanted = requirements(install)
    what = [*(f"{name}={value}" for name, value in variables.items()), *wanted]
    name = hashlib.sha256("\0".join([*what, python or sys.version.split()[0]]).encode()).hexdigest()[:16]
    return home() / name


def _steps(place: Path, wanted: Sequence[str], python: str | None) -> list[list[str]]:
    interpreter = str(place / "bin" / "python")
    uv = shutil.which("uv")
    if uv:
        version = ["--python", python] if python else []
        return [[uv, "venv", *version, str(place)], [uv, "pip", "install", "--python", interpreter, *wanted]]
    base = python or sys.executable
    return [[base, "-m", "venv", str(place)], [interpreter, "-m", "pip", "install", *wanted]]


def _run(command: Sequence[str], variables: Mapping[str, str]) -> None:
    """Show the installer's own progress on stderr; it may take many minutes, and says so itself."""
    done = subprocess.run(list(command), check=False, env={**inherited(INSTALLING), **variables}, stdout=2)
    if done.returncode != 0:
        raise EngineFailed(f"{shown(command)[:200]} failed with exit code {done.returncode}")


NAMES = frozenset(
    [
        "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TERM", "TZ", "PWD", "TMPDIR",
        "TEMP", "TMP", "VIRTUAL_ENV", "CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS", "MAX_JOBS",
        "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
        "SYSTEMROOT", "COMSPEC", "PATHEXT", "APPDATA", "LOCALAPPDATA", "USERPROFILE",
    ]
)  # fmt: skip
PREFIXES = (
    "LC_", "LD_", "DYLD_", "XDG_", "SSL_", "PYTHON", "CONDA_", "CUDA", "NVIDIA_", "NCCL_", "GLOO_", "UCX_",
    "NVTE_", "HIP_", "ROCM", "ROCR_", "HSA_", "AMD_", "ASCEND_", "HCCL_", "NPU_", "ATB_", "ZE_", "SYCL_",
    "ONEAPI_", "TORCH", "PYTORCH_", "TRITON_", "OMP_", "MKL_", "OPENBLAS_", "KMP_", "GOMP_", "TOKENIZERS_",
    "SAFETENSORS_", "HF_", "MODELSCOPE_", "RAY_", "SLURM_", "CMAKE_",
)  # fmt: skip
INSTALLING = ("PIP_", "UV_")
_SECRET = frozenset({"KEY", "KEYS", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "CREDENTIALS"})
DOWNLOADS = "HF_TOKEN"
"""The one secret that an engine needs, where it fetches the checkpoint itself."""


def inherited(more: Sequence[str] = (), *, downloads: bool = False,
              also: Collection[str] = ()) -> Mapping[str, str]:  # fmt: skip
    """Our own variables by an allow-list, those that begin as `more` says, and those named in `also`."""
    begins = (*PREFIXES, *more)
    return {
        name: value for name, value in os.environ.items()
        if name in also or (downloads and name == DOWNLOADS)
        or ((name.upper() in NAMES or name.startswith(begins)) and not _is_secret(name))
    }  # fmt: skip


def _is_secret(name: str) -> bool:
    return not _SECRET.isdisjoint(name.upper().split("_"))


def fetches(command: Sequence[str]) -> bool:
    """Whether a command names no checkpoint that lies on this machine."""
    return not any(
        Path(word).is_dir() or (word.endswith(".gguf") and Path(word).exists()) for word in command[1:]
    )
