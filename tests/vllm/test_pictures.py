"""Pictures through vLLM in this process: the tokens of transformers' own processor and `generate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import tiny_pictures
from tiny_pictures import image, picture, text, user

import memserve
from memserve.errors import ContextOverflow, InvalidInput, Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.engine("vllm"), pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
MOST = 10
PICTURES = [picture(seed, *size) for seed, size in enumerate([(40, 60), (90, 30), (33, 33), (64, 64)])]
TALKS = [
    user(image(PICTURES[0]), text("the river")),
    user(text("seven green"), image(PICTURES[1]), text("lamps"), image(PICTURES[2])),
    user(text("the old stone bridge")),
    [*user(image(PICTURES[3])), {"role": "assistant", "content": "stone"}, *user(text("and why"))],
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pictures.wide(tmp_path_factory.mktemp("wide"))


@pytest.fixture(scope="module")
def generator(folder: Path) -> Iterator[Any]:
    with memserve.generator(str(folder), backend="vllm", dtype="float32", max_model_len=512) as opened:
        yield opened


def test_conversations_with_pictures_go_on_as_transformers_says(generator: Any, folder: Path) -> None:
    assert generator.capabilities.images
    reference = tiny_pictures.Reference(folder)
    wanted = [reference.answer(talk, MOST) for talk in TALKS]
    answers = generator.generate(TALKS, max_tokens=MOST)
    assert [(list(one.token_ids), one.usage.prompt_tokens) for one in answers] == wanted
    assert [generator.count_tokens(talk) for talk in TALKS] == [count for _, count in wanted]
    whole = "".join(delta.text for delta in generator.stream(TALKS[1], max_tokens=MOST))
    assert whole == answers[1].text


def test_what_cannot_be_shown_fails_alone(generator: Any) -> None:
    long = user(image(PICTURES[0]), text("the river " * 250))
    broken = user(image(b"\x89PNG\r\n\x1a\n broken"))
    good, *bad = generator.generate([TALKS[0], long, broken], max_tokens=MOST, on_error="return")
    assert good.error is None
    assert [type(one.error) for one in bad] == [ContextOverflow, InvalidInput]
    with pytest.raises(Unsupported):
        generator.score([(TALKS[0], "stone")])
