import json

import pytest

from memserve import files
from memserve.engines.memory import Footprint
from memserve.errors import InvalidInput
from memserve.memory.calibration import Calibration, StartupLog, find, learn, load, save

GIB = 1024**3


def footprint(*, budgeted=False, **own):
    parts = {"total": 80 * GIB, "usable": 72 * GIB, "weights": 15 * GIB, "activation": 5 * GIB,
             "non_torch": GIB // 4, "graphs": GIB}  # fmt: skip
    parts |= own
    taken = parts["weights"] + parts["activation"] + parts["non_torch"] + (parts["graphs"] if budgeted else 0)
    kv = parts["usable"] - taken
    return Footprint(**parts, kv_cache=kv, kv_tokens=kv // 1024, max_concurrency=4.0)


def test_what_a_log_teaches():
    log = StartupLog("vllm", version="0.19.1", tensor=2, total=79 * GIB, weights=15 * GIB, activation=4 * GIB,
                     non_torch=2 * GIB, graphs=GIB // 2)  # fmt: skip
    learnt = learn(log, card="H100-80GB", footprint=footprint(), name="start.log", date="2026-11-20")
    assert (learnt.backend, learnt.card, learnt.tensor, learnt.total) == ("vllm", "H100-80GB", 2, 79 * GIB)
    assert (learnt.non_torch, learnt.graphs, learnt.activation) == (2 * GIB, GIB // 2, pytest.approx(0.8))


def test_the_log_that_taught_is_reproduced():
    """Learning from a start and accounting for that start again gives what was measured."""
    ours = footprint()
    log = StartupLog("vllm", total=ours.total, activation=4 * GIB, non_torch=2 * GIB, graphs=2 * GIB,
                     kv_bytes=ours.usable - ours.weights - 6 * GIB)  # fmt: skip
    corrected = learn(log, card="H100-80GB", footprint=ours).apply(ours)
    assert corrected.kv_cache == log.kv_bytes
    assert (corrected.activation, corrected.non_torch, corrected.graphs) == (4 * GIB, 2 * GIB, 2 * GIB)
    assert corrected.weights == ours.weights
    assert corrected.kv_tokens == pytest.approx(ours.kv_tokens * corrected.kv_cache / ours.kv_cache, abs=1)


def test_graphs_count_where_the_engine_budgets_them():
    ours = footprint(budgeted=True)
    corrected = Calibration("vllm", "H100-80GB", graphs=3 * GIB).apply(ours)
    assert corrected.kv_cache == ours.kv_cache - 2 * GIB
    assert (
        Calibration("vllm", "H100-80GB", graphs=3 * GIB).apply(footprint()).kv_cache == footprint().kv_cache
    )


def test_another_total_moves_the_budget():
    corrected = Calibration("vllm", "H100-80GB", total=40 * GIB).apply(footprint())
    assert corrected.usable == 36 * GIB
    assert (
        corrected.weights + corrected.activation + corrected.non_torch + corrected.kv_cache
        <= corrected.usable
    )


def test_nothing_left_is_a_refusal():
    corrected = Calibration("vllm", "H100-80GB", total=20 * GIB).apply(footprint())
    assert corrected.outcome == "refused" and corrected.kv_cache == 0


def test_nothing_learnt_changes_nothing():
    ours = footprint()
    assert Calibration("vllm", "H100-80GB").apply(ours) == ours


def test_artefacts_are_no_constants():
    log = StartupLog("vllm", total=80 * GIB, activation=5 * GIB, non_torch=60 * GIB, graphs=-GIB)
    learnt = learn(log, card="H100-80GB", footprint=footprint(activation=GIB // 100))
    assert (learnt.non_torch, learnt.graphs, learnt.activation) == (None, None, None)


def test_profiles_are_kept_by_engine_card_and_tensor(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMSERVE_CONFIG_DIR", str(tmp_path / "own"))
    assert load() == ()
    save(Calibration("vllm", "L4", non_torch=1))
    save(Calibration("vllm", "L4", tensor=2, non_torch=2))
    path = save(Calibration("vllm", "L4", non_torch=3))
    assert str(path) == files.configured(files.CALIBRATION)
    assert [one.non_torch for one in load()] == [2, 3]
    assert find(load(), backend="vllm", card="L4", tensor=1) == Calibration("vllm", "L4", non_torch=3)
    assert find(load(), backend="sglang", card="L4", tensor=1) is None


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"schema": 2, "profiles": []}', '{"schema": 1, "profiles": [{}]}',
     '{"schema": 1, "profiles": [3]}',
     '{"schema": 1, "profiles": [{"backend": "vllm", "card": "L4", "total": "much"}]}'],
)  # fmt: skip
def test_a_broken_file_is_one_clear_line(tmp_path, text):
    file = tmp_path / "calibration.json"
    file.write_text(text)
    with pytest.raises(InvalidInput, match="is no calibration of memserve") as caught:
        load(file)
    assert "\n" not in str(caught.value)


def test_unknown_fields_of_a_newer_version_are_left_alone(tmp_path):
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps({"schema": 1, "profiles": [{"backend": "vllm", "card": "L4", "new": 1}]}))
    assert load(file) == (Calibration("vllm", "L4"),)


def test_an_unwritable_place(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="cannot"):
        save(Calibration("vllm", "L4"), tmp_path / "file" / "calibration.json")


def test_a_home_that_nobody_has_holds_no_calibration(tmp_path, monkeypatch):
    monkeypatch.delenv("MEMSERVE_CONFIG_DIR", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    assert files.is_configured(files.CALIBRATION) is False


def test_what_no_constant_explains_is_a_residual():
    """A log that prints weights and KV cache alone, as most do: that start is told as it was measured."""
    ours = footprint()
    for missing in (-GIB, GIB // 2):
        log = StartupLog("vllm", weights=ours.weights, kv_bytes=ours.kv_cache + missing)
        learnt = learn(log, card="H100-80GB", footprint=ours)
        assert (learnt.residual, learnt.empty) == (missing, False)
        assert learnt.apply(ours).kv_cache == log.kv_bytes
    other = StartupLog("vllm", kv_bytes=ours.kv_cache - 20 * GIB)
    assert learn(other, card="H100-80GB", footprint=ours).residual is None


@pytest.mark.parametrize("share", [0.12, 0.34, 2.7])
def test_an_excerpt_of_another_batch_teaches_neither_its_peak_nor_what_is_left(share):
    """One sequence's peak, or another sampler's, would be taken off every later start's."""
    ours = footprint()
    peak = round(share * ours.activation)
    log = StartupLog(
        "vllm", total=ours.total, activation=peak, kv_bytes=ours.kv_cache + ours.activation - peak
    )
    learnt = learn(log, card="H100-80GB", footprint=ours)
    assert (learnt.activation, learnt.residual, learnt.total) == (None, None, ours.total)


def test_tokens_tell_a_residual_where_bytes_are_not_printed():
    ours = footprint()
    log = StartupLog("sglang", kv_tokens=ours.kv_tokens - 100_000)
    learnt = learn(log, card="H100-80GB", footprint=ours)
    assert learnt.apply(ours).kv_tokens == pytest.approx(log.kv_tokens, abs=2)


def test_each_release_has_its_own(tmp_path):
    file = tmp_path / "calibration.json"
    for version in ("0.19.1", "0.31.0", "0.31.0.post1", None):
        save(Calibration("vllm", "L4", version=version, residual=-GIB), file)
    known = load(file)
    assert [one.version for one in known] == ["0.19.1", "0.31.0.post1", None]

    def found(version):
        learnt = find(known, backend="vllm", card="L4", tensor=1, version=version)
        return learnt and learnt.version

    assert [found(v) for v in ("0.19.1", "0.19.0", "0.31.0", "0.31.2")] == [
        "0.19.1", "0.19.1", "0.31.0.post1", "0.31.0.post1",
    ]  # fmt: skip
    assert found("0.25.0") is None and find(known[:2], backend="vllm", card="L4", tensor=1) is known[1]
