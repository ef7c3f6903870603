"""The environment that an engine's server, or its installer, is given of ours: no key, and no secret."""

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

NAMES = frozenset(
    [
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "LANG",
        "LANGUAGE",
        "TERM",
        "TZ",
        "PWD",
        "TMPDIR",
        "TEMP",
        "TMP",
        "VIRTUAL_ENV",
        "CC",
        "CXX",
        "CFLAGS",
        "CXXFLAGS",
        "LDFLAGS",
        "MAX_JOBS",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "ALL_PROXY",
        "SYSTEMROOT",
        "COMSPEC",
        "PATHEXT",
        "APPDATA",
        "LOCALAPPDATA",
        "USERPROFILE",
    ]
)
PREFIXES = (
    "LC_",
    "LD_",
    "DYLD_",
    "XDG_",
    "SSL_",
    "PYTHON",
    "CONDA_",
    "CUDA",
    "NVIDIA_",
    "NCCL_",
    "GLOO_",
    "UCX_",
    "NVTE_",
    "HIP_",
    "ROCM",
    "ROCR_",
    "HSA_",
    "AMD_",
    "ASCEND_",
    "HCCL_",
    "NPU_",
    "ATB_",
    "ZE_",
    "SYCL_",
    "ONEAPI_",
    "TORCH",
    "PYTORCH_",
    "TRITON_",
    "OMP_",
    "MKL_",
    "OPENBLAS_",
    "KMP_",
    "GOMP_",
    "TOKENIZERS_",
    "SAFETENSORS_",
    "HF_",
    "MODELSCOPE_",
    "RAY_",
    "SLURM_",
    "CMAKE_",
)
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
