"""What is broken, truncated, foreign or pickled is refused by name, before any weight is loaded."""

from __future__ import annotations

import json
import struct

import pytest

from memserve.errors import ModelUnreadable
from memserve_hf.opening.checkpoint import inspect


def written(folder, tensors: dict[str, int], *, cut: int = 0, name: str = "model.safetensors"):
    """A checkpoint of zeros: name -> bytes of one float32 tensor each."""
    header, end = {}, 0
    for tensor, size in tensors.items():
        header[tensor] = {"dtype": "F32", "shape": [size // 4], "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    (folder / name).write_bytes(
        (struct.pack("<Q", len(text)) + text + bytes(end))[: None if not cut else -cut]
    )
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


def test_a_whole_checkpoint_is_counted(tmp_path):
    assert inspect(written(tmp_path, {"a": 64, "b": 32}), "m").bytes == 96


def test_a_truncated_file_names_file_and_tensor(tmp_path):
    with pytest.raises(ModelUnreadable, match="truncated") as caught:
        inspect(written(tmp_path, {"a": 64, "b": 32}, cut=8), "m")
    assert caught.value.path.endswith("model.safetensors")
    assert caught.value.field == "b"


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff" * 64, struct.pack("<Q", 40) + b"{not json" * 9])
def test_a_foreign_file_is_no_safetensors(tmp_path, content):
    written(tmp_path, {"a": 4})
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelUnreadable) as caught:
        inspect(tmp_path, "m")
    assert caught.value.field == "header"


def test_a_missing_shard_is_named(tmp_path):
    written(tmp_path, {"a": 4}, name="model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(ModelUnreadable, match="00002-of-00002"):
        inspect(tmp_path, "m")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"hidden_size": 4}', '{"model_type": 3}'])
def test_a_broken_config_is_named(tmp_path, text):
    written(tmp_path, {"a": 4})
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelUnreadable) as caught:
        inspect(tmp_path, "m")
    assert caught.value.path.endswith("config.json")


def test_pickles_are_refused_unless_asked_for(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"anything")
    with pytest.raises(ModelUnreadable, match="pickled"):
        inspect(tmp_path, "m")
    assert inspect(tmp_path, "m", allow_pickle=True).bytes == 0


def test_a_folder_without_weights_is_no_model(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ModelUnreadable, match="no weights"):
        inspect(tmp_path, "m")
