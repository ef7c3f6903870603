"""vLLM-Ascend: vLLM's own engine on Huawei's cards, once what it needs is there."""

import os
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from memserve.errors import BackendMissing, InvalidInput
from memserve.missing import install_line
from memserve.protocol import Task
from memserve_ascend.launch import BLOCK, settings
from memserve_vllm import engine as vllm

capabilities = replace(vllm.capabilities, backend="ascend")


def open_engine(model: str | None = None, *, task: Task = "generate", server: bool = False,
                **options: Any) -> Any:  # fmt: skip
    """An engine for one task; options are vLLM's engine arguments, or `server=True` and `python=`."""
    if model is None:
        raise InvalidInput("backend 'ascend' needs a model: a folder or a hub id")
    ranks = int(options.get("tensor_parallel_size") or 1) * int(options.get("pipeline_parallel_size") or 1)
    options.setdefault("block_size", BLOCK)
    if server:
        return vllm.serve(str(model), task, options, backend="ascend", env=settings(ranks))
    need()
    for name, value in settings(ranks).items():
        os.environ.setdefault(name, value)
    engine = vllm.open_engine(model, task=task, **options)
    engine.capabilities = replace(engine.capabilities, backend="ascend")
    return engine


INSTALL = install_line("ascend")
DEVICE = Path("/dev/davinci_manager")
"""There as soon as the driver is (and is passed into the container)."""
HOMES = ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME")
"""Set by CANN's set_env.sh."""
SET_ENV = "source /usr/local/Ascend/ascend-toolkit/set_env.sh"


def need() -> None:
    """Pass, or raise `BackendMissing` for the lowest part that is not there."""
    if not DEVICE.exists():
        raise _missing(
            f"the NPU driver, below CANN and torch_npu ({DEVICE} is not there)",
            f"install the card's driver and firmware, or pass the device into the container; then {INSTALL}",
        )
    if not _cann():
        raise _missing("CANN (libascendcl.so is not on the library path)",
                       f"install CANN and: {SET_ENV}; then {INSTALL}")  # fmt: skip
    for module, name in (("torch_npu", "torch_npu"), ("vllm_ascend", "vllm-ascend")):
        if find_spec(module) is None:
            raise _missing(name, INSTALL)
    _loads()


def _cann() -> bool:
    homes = [os.environ[name] for name in HOMES if os.environ.get(name)]
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    folders = [*(Path(home, "lib64") for home in homes), *map(Path, filter(None, libraries))]
    return any((folder / "libascendcl.so").exists() for folder in folders)


def _loads() -> None:
    """torch_npu is built for one torch and one CANN; beside others it is there and does not load."""
    try:
        import_module("torch_npu")
    except (ImportError, OSError, RuntimeError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        remedy = f"{SET_ENV}; or take the torch that it was built for: {INSTALL}"
        raise _missing(f"a torch_npu that loads ({why})", remedy) from error


def _missing(needs: str, install: str) -> BackendMissing:
    return BackendMissing("ascend", needs=needs, install=install)
