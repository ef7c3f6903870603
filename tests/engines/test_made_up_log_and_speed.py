"""A backend that nobody here knows: its log is learnt from and its engine timed, by its data alone."""

import json
import sys

import pytest

from memserve import registry
from memserve.errors import InvalidInput
from memserve.memory import calibration
from memserve.memory.calibration import learn
from memserve.speed import predict

GIB = 1024**3
LOG = {
    "engine": "Quince", "recognised_by": None, "example": "quince keeps 7 cells", "block_size": 32,
    "lines": [
        {"field": "total", "pattern": r"quince sees ([\d.]+)G", "pick": "min", "unit": "gib",
         "printed_by": "1"},
        {"field": "non_torch", "pattern": r"quince runtime ([\d.]+)G", "pick": "max", "unit": "gib",
         "printed_by": "1"},
        {"field": "blocks", "pattern": r"quince keeps (\d+) cells", "pick": "min", "unit": "count",
         "printed_by": "1"},
    ],
}  # fmt: skip
SPEED = {
    "names": ["quince", "quince server"],
    "limits": [{"sequences": 1, "tokens": 512, "source": "one at a time"}],
    "constants": {"step_s": 0.5},
    "timed_on": ["hopper"],
    "ranges": {"tpot": [0.99, 1.01, 12]},
}
CALL = {"input_tokens": 100, "output_tokens": 10, "concurrency": 1}


@pytest.fixture
def backend(tmp_path, monkeypatch):
    """Installs `quince`, with the files that a test gives it."""

    def install(**parts):
        folder = tmp_path / "quince_backend"
        folder.mkdir()
        code = "from memserve.engines.package import Package\nbackend = Package('quince', __name__)\n"
        (folder / "__init__.py").write_text(code)
        for name, part in parts.items():
            (folder / f"{name}.json").write_text(json.dumps(part))
        info = tmp_path / "quince-1.dist-info"
        info.mkdir()
        (info / "entry_points.txt").write_text("[memserve.backends]\nquince = quince_backend:backend\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        registry.forget()

    yield install
    sys.modules.pop("quince_backend", None)
    monkeypatch.undo()
    registry.forget()


def test_its_log_is_learnt_from(backend):
    backend(log=LOG)
    log = calibration.parse_log("quince sees 79.5G\nquince runtime 1.25G\nquince keeps 10 cells\n")
    assert (log.backend, log.total, log.kv_tokens) == ("quince", round(79.5 * GIB), 320)
    learnt = learn(log, card="H100-80GB")
    assert (learnt.backend, learnt.non_torch) == ("quince", round(1.25 * GIB))


def test_a_log_of_ours_is_not_taken_for_its(backend):
    backend(log=LOG)
    assert calibration.parse_log("Available KV cache memory: 9.00 GiB").backend == "vllm"
    with pytest.raises(InvalidInput, match="Quince"):
        calibration.parse_log("nothing")


def test_its_engine_is_timed_by_its_own_constants(backend):
    without = predict("qwen3-8b", "1xH100", backend="quince", **CALL)
    backend(speed=SPEED)
    own = predict("qwen3-8b", "1xH100", backend="quince", **CALL)
    assert without.at_most and not own.at_most
    assert own.tpot_ms.likely > 500 > without.tpot_ms.likely
    assert own.tpot_ms.high / own.tpot_ms.likely == pytest.approx(1.01)
    assert predict("qwen3-8b", "1xH100", backend="Quince Server 3.1", **CALL).tpot_ms == own.tpot_ms
    elsewhere = predict("qwen3-8b", "1xL4", backend="quince", **CALL)
    assert elsewhere.at_most and elsewhere.tpot_ms.high / elsewhere.tpot_ms.likely > 1.5
    assert predict("qwen3-8b", "1xH100", backend="quince", **{**CALL, "concurrency": 8}).batch == 1


def test_without_figures_it_gets_everybodys_with_wider_ranges(backend):
    backend()
    found = predict("qwen3-8b", "1xH100", backend="quince", **CALL)
    unknown = predict("qwen3-8b", "1xH100", backend="another", **CALL)
    assert found == unknown and found.at_most
