"""datasets: a function that holds an open generator keeps its fingerprint."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.engine("harnesses"), pytest.mark.filterwarnings("ignore")]


def fingerprint(folder, backend="hf", **options):
    from datasets.fingerprint import Hasher

    import memserve
    import memserve.adapters.datasets

    with memserve.generator(folder, backend=backend, **options) as model:
        return Hasher.hash(lambda row: model.generate(row["question"]))


def test_the_model_decides_and_no_key_does(weights):
    first, again, other = (
        fingerprint(weights / name, dtype="float32") for name in ("tiny", "tiny", "smollm2")
    )
    assert first == again != other
    where = {"backend": "openai", "base_url": "http://127.0.0.1:9/v1"}
    keys = [fingerprint("m", api_key=key, **where) for key in ("one", "two")]
    assert keys[0] == keys[1] != fingerprint("n", api_key="one", **where)


def test_map_goes_on_from_what_it_kept(weights, tmp_path):
    from datasets import Dataset, load_from_disk

    import memserve
    import memserve.adapters.datasets

    Dataset.from_dict({"question": ["the river", "seven lamps"]}).save_to_disk(str(tmp_path / "rows"))
    rows = load_from_disk(str(tmp_path / "rows"))

    def answered(model):
        return lambda batch: {"answer": [one.text for one in model.generate(batch["question"], max_tokens=3)]}

    made = []
    for _ in range(2):
        with memserve.generator(weights / "tiny", backend="hf", dtype="float32") as model:
            made.append(rows.map(answered(model), batched=True))
    assert made[0].cache_files == made[1].cache_files != rows.cache_files
    assert made[0]["answer"][:] == made[1]["answer"][:]
