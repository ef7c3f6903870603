"""Pictures in this process: llama.cpp's encoder between a prompt's words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import tiny_gguf

import memserve
from memserve.conformance.test_pictures import png, shown
from memserve.errors import InvalidInput, ModelUnreadable, Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.engine("llamacpp"), pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("sees")
    tiny_gguf.vision(made)
    return made


@pytest.fixture(scope="module")
def generator(folder: Path) -> Iterator[Any]:
    with memserve.generator(str(folder), backend="llamacpp", n_ctx=1024) as opened:
        yield opened


def _texts(generator: Any, *prompts: Any) -> list[str]:
    return [one.text for one in generator.generate(list(prompts), max_tokens=8)]


def test_what_was_computed_of_pictures_before_changes_nothing(generator: Any) -> None:
    """A conversation goes on from its own pictures; another does not."""
    first = shown(0, 1)
    longer = [*first, {"role": "assistant", "content": "two"}, *shown(2)]
    fresh = [_texts(generator, "a river", prompt)[1] for prompt in (first, longer, shown(1, 0))]
    assert len(set(fresh)) == len(fresh)
    assert _texts(generator, first, longer, shown(1, 0), longer, first) == [
        fresh[0], fresh[1], fresh[2], fresh[1], fresh[0],
    ]  # fmt: skip


def test_samples_schema_and_stream_see_them_too(generator: Any) -> None:
    hot = generator.generate(shown(0), max_tokens=4, n=3, temperature=1.5, seed=1)
    assert len({one.text for one in hot.samples}) > 1
    told = generator.generate(shown(0), choices=["red", "blue"], max_tokens=8)
    assert told.text in ("red", "blue")
    assert (
        "".join(delta.text for delta in generator.stream(shown(3), max_tokens=8))
        == _texts(generator, shown(3))[0]
    )


def test_the_projector_is_named_or_found(folder: Path, tmp_path: Path) -> None:
    model, eyes = str(folder / "model.gguf"), str(folder / "mmproj-model.gguf")
    with memserve.generator(model, backend="llamacpp", n_ctx=256) as blind:
        assert not blind.capabilities.images
        with pytest.raises(Unsupported, match="images"):
            blind.generate(shown(0), max_tokens=1)
    with memserve.generator(model, backend="llamacpp", n_ctx=256, mmproj=eyes) as seeing:
        assert seeing.capabilities.images
        assert seeing.generate("only words", max_tokens=2).error is None
    with pytest.raises(ModelUnreadable, match="no file"):
        memserve.generator(model, backend="llamacpp", n_ctx=256, mmproj=str(tmp_path / "none.gguf"))
    with pytest.raises(ModelUnreadable, match="projector"):
        memserve.generator(model, backend="llamacpp", n_ctx=256, mmproj=model)


def test_what_is_no_picture_and_a_long_prompt_are_refused(generator: Any) -> None:
    part = {"type": "image_url", "image_url": {"url": b"GIF89a" + png(1)}}
    with pytest.raises(InvalidInput):
        generator.generate([{"role": "user", "content": [part]}], max_tokens=1)
    with pytest.raises(memserve.errors.ContextOverflow):
        generator.generate(shown(*range(6), 0, 1, 2, 3, 4, 5, 0, 1), max_tokens=4)
