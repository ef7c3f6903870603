"""Pictures: the tokens of transformers' own processor and `generate`, alone and in company."""

from __future__ import annotations

import io
import threading
from base64 import b64encode
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
import tiny_hf
import tiny_pictures
from tiny_pictures import image, picture, text, user

import memserve
from memserve.errors import BackendMissing, ContextOverflow, InvalidInput, MemserveError, Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.engine("hf")
MOST = 12
SIZES = [(40, 60), (90, 30), (33, 33), (64, 64), (120, 50), (25, 70), (48, 48), (31, 77)]
PICTURES = [picture(seed, *size) for seed, size in enumerate(SIZES)]
TALKS = [
    user(image(PICTURES[0]), text("the river")),
    user(text("seven green"), image(PICTURES[1]), text("lamps"), image(PICTURES[2])),
    user(text("the old stone bridge")),
    user(image(PICTURES[3])),
    [
        *user(image(PICTURES[4]), text("a window")),
        {"role": "assistant", "content": "stone"},
        *user(text("and"), image(PICTURES[5])),
    ],
    user(*map(image, PICTURES[4:8])),
    [{"role": "user", "content": "while seven lamps stand under the window"}],
    user(text("under a window " * 20), image(PICTURES[6]), text("the river runs " * 12)),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Models by family, each made once."""
    known: dict[str, Path] = {}

    def of(family: str) -> Path:
        if family not in known:
            makers = {**tiny_pictures.CHAT, **tiny_pictures.CAPTION}
            known[family] = makers[family](tmp_path_factory.mktemp(family))
        return known[family]

    return of


@pytest.fixture
def llava(made: Any) -> Iterator[Any]:
    with memserve.generator(str(made("llava")), backend="hf", dtype="float32") as opened:
        yield opened


def _same(generator: Any, talks: list[Any], wanted: list[tuple[list[int], int]]) -> None:
    together = generator.generate(talks, max_tokens=MOST)
    alone = [generator.generate(talk, max_tokens=MOST) for talk in talks]
    for answers in (together, alone):
        assert [list(one.token_ids) for one in answers] == [ids for ids, _ in wanted]
        assert [one.usage.prompt_tokens for one in answers] == [count for _, count in wanted]


@pytest.mark.parametrize("family", sorted(tiny_pictures.CHAT))
def test_conversations_with_pictures_go_on_as_transformers_says(made: Any, family: str) -> None:
    folder = made(family)
    reference = tiny_pictures.Reference(folder)
    wanted = [reference.answer(talk, MOST) for talk in TALKS]
    assert len({tuple(ids) for ids, _ in wanted}) > len(TALKS) // 2
    with memserve.generator(str(folder), backend="hf", dtype="float32") as generator:
        assert generator.capabilities.images
        assert generator.count_tokens(TALKS[1]) == wanted[1][1]
        _same(generator, TALKS, wanted)
        _same(generator, TALKS[::-1], wanted[::-1])


@pytest.mark.parametrize("family", ["qwen2", "gemma3"])
def test_the_lane_apart_says_the_same(made: Any, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the slots would not give the model's logits, `generate` does, in company all the same."""
    monkeypatch.setattr("memserve_hf.decoding.sight.shows", lambda *_: False)
    folder = made(family)
    reference = tiny_pictures.Reference(folder)
    with memserve.generator(str(folder), backend="hf", dtype="float32") as generator:
        _same(generator, TALKS, [reference.answer(talk, MOST) for talk in TALKS])


@pytest.mark.parametrize("family", sorted(tiny_pictures.CAPTION))
def test_captions_are_made_as_transformers_makes_them(made: Any, family: str) -> None:
    folder = made(family)
    reference = tiny_pictures.Reference(folder)
    talks = [user(image(one)) for one in PICTURES]
    if family == "blip":
        talks += [user(image(one), text("the river runs")) for one in PICTURES[:3]]
    wanted = [reference.answer(talk, MOST) for talk in talks]
    assert len({tuple(ids) for ids, _ in wanted}) > 2
    with memserve.generator(str(folder), backend="hf", dtype="float32") as generator:
        _same(generator, talks, wanted)
        with pytest.raises(Unsupported):
            generator.generate("a caption of nothing")
        with pytest.raises(InvalidInput):
            generator.generate(user(image(PICTURES[0]), image(PICTURES[1])))


def test_a_caption_model_that_goes_on_from_words_gets_no_end_before_it(made: Any) -> None:
    folder = made("git")
    reference = tiny_pictures.Reference(folder)
    talk = user(image(PICTURES[0]), text("the river"))
    inputs = reference.inputs(talk)
    ids = inputs["input_ids"][:, :-1]
    with reference.torch.inference_mode():
        whole = reference.model.generate(
            input_ids=ids, pixel_values=inputs["pixel_values"], max_new_tokens=MOST, do_sample=False
        )
    with memserve.generator(str(folder), backend="hf", dtype="float32") as generator:
        answer = generator.generate(talk, max_tokens=MOST)
    assert list(answer.token_ids) == whole[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("family", ["qwen2", "gemma3", "llava"])
def test_a_picture_seen_before_is_not_computed_again(made: Any, family: str) -> None:
    words = "the river runs past an old stone bridge " * 6
    talks = [user(image(PICTURES[0]), text(words + last)) for last in ("seven", "green", "lamps")]
    other = user(image(PICTURES[6].resize(PICTURES[0].size)), text(words + "seven"))
    reference = tiny_pictures.Reference(made(family))
    with memserve.generator(str(made(family)), backend="hf", dtype="float32") as generator:
        answers = [generator.generate(talk, max_tokens=MOST) for talk in (*talks, other)]
        assert [one.usage.cached_tokens > 0 for one in answers] == [False, True, True, False]
    assert [list(one.token_ids) for one in answers] == [reference.answer(t, MOST)[0] for t in (*talks, other)]


def test_words_before_a_picture_are_shared(llava: Any) -> None:
    words = "the river runs past an old stone bridge " * 6
    first, second = (
        llava.generate(user(text(words), image(one)), max_tokens=4) for one in (PICTURES[0], PICTURES[3])
    )
    assert (first.usage.cached_tokens, second.usage.cached_tokens) == (0, 0)
    again = llava.generate(user(text(words + "seven")), max_tokens=4)
    assert again.usage.cached_tokens >= 32


def test_a_vision_checkpoint_answers_text(llava: Any) -> None:
    can = llava.capabilities
    assert (can.chat, can.raw, can.token_ids, can.score) == (True, True, True, True)
    assert llava.generate(memserve.Raw("the river"), max_tokens=4).usage.prompt_tokens == 2
    [score] = llava.score([("the river", " runs past")])
    assert score.tokens == 2


def test_every_way_of_asking_takes_pictures(llava: Any) -> None:
    talk = TALKS[1]
    whole = llava.generate(talk, max_tokens=MOST)
    assert "".join(delta.text for delta in llava.stream(talk, max_tokens=MOST)) == whole.text
    drawn = llava.generate(talk, max_tokens=MOST, n=3, temperature=1.0, seed=7)
    assert len({sample.token_ids for sample in drawn.samples}) > 1
    again = llava.generate([talk, TALKS[0]], max_tokens=MOST, n=3, temperature=1.0, seed=7)[0]
    assert [one.token_ids for one in again.samples] == [one.token_ids for one in drawn.samples]
    chosen = llava.generate(talk, choices=["stone", "seven"], max_tokens=MOST)
    assert chosen.text in ("stone", "seven")


@pytest.mark.parametrize("family", ["llava", "blip"])
def test_a_stream_that_is_left_leaves_nothing_behind(made: Any, family: str) -> None:
    with memserve.generator(str(made(family)), backend="hf", dtype="float32") as generator:
        deltas = generator.stream(user(image(PICTURES[0])), max_tokens=30)
        next(deltas)
        deltas.close()
        assert generator.generate(user(image(PICTURES[1])), max_tokens=3).error is None
    assert not [one for one in threading.enumerate() if one.name == "memserve-hf-generate"]


def test_the_same_picture_however_it_is_handed_over(llava: Any, tmp_path: Path) -> None:
    shown = PICTURES[0]
    shown.save(tmp_path / "one.png")
    data = (tmp_path / "one.png").read_bytes()
    url = f"data:image/png;base64,{b64encode(data).decode()}"
    ways = [
        image(shown), image(url), image(str(tmp_path / "one.png")), image(tmp_path / "one.png"),
        {"type": "image", "image": shown}, {"type": "input_image", "image_url": url}, image(data),
        {"type": "image", "url": (tmp_path / "one.png").as_uri()},
    ]  # fmt: skip
    answers = llava.generate([user(one, text("the river")) for one in ways], max_tokens=MOST)
    assert len({answer.token_ids for answer in answers}) == 1


def test_colours_and_turned_photographs_are_read_as_transformers_reads_them(llava: Any, made: Any) -> None:
    from PIL import Image
    from transformers.image_utils import load_image

    reference, file = tiny_pictures.Reference(made("llava")), io.BytesIO()
    turned = Image.Exif()
    turned[0x0112] = 6
    PICTURES[1].save(file, "JPEG", exif=turned.tobytes())
    shown = [file.getvalue(), Image.open(io.BytesIO(file.getvalue()))]
    for mode in ("L", "P", "RGBA", "LA", "1", "CMYK"):
        changed = PICTURES[2].convert(mode)
        file = io.BytesIO()
        changed.save(file, "TIFF" if mode == "CMYK" else "PNG")
        shown.append(file.getvalue())
    answers = llava.generate([user(image(one)) for one in shown], max_tokens=MOST)
    for answer, data in zip(answers, shown, strict=True):
        upright = load_image(b64encode(data).decode() if isinstance(data, bytes) else data)
        assert list(answer.token_ids) == reference.answer(user(image(upright)), MOST)[0]


def test_what_is_no_picture_is_refused_before_any_work(llava: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = io.BytesIO()
    PICTURES[0].save(whole, "PNG")
    broken = whole.getvalue()[:-200]
    with pytest.raises(InvalidInput, match="cannot be read"):
        llava.generate(user(image(broken)), max_tokens=2)
    monkeypatch.setattr("memserve.pictures.MOST_PIXELS", 100)
    with pytest.raises(InvalidInput, match="larger than 100 pixels"):
        llava.generate(user(image(whole.getvalue())), max_tokens=2)
    good, bad = llava.generate([TALKS[2], user(image(broken))], max_tokens=2, on_error="return")
    assert good.error is None
    assert isinstance(bad.error, InvalidInput)


def test_a_prompt_with_pictures_is_never_cut(llava: Any) -> None:
    long = user(image(PICTURES[0]), text("the river " * 600))
    with pytest.raises(ContextOverflow):
        llava.generate(long, max_tokens=4, truncate="left")
    with pytest.raises(Unsupported):
        llava.score([(user(image(PICTURES[0])), "stone")])
    with pytest.raises(Unsupported, match="audio"):
        llava.generate(user({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}))
    with pytest.raises(Unsupported, match="video"):
        llava.generate(user({"type": "video_url", "video_url": {"url": "x"}}))


def test_without_a_reader_text_alone_is_taken(made: Any, tmp_path: Path) -> None:
    folder = tiny_pictures.llava(tmp_path / "blind")
    (folder / "processor_config.json").unlink()
    with memserve.generator(str(folder), backend="hf", dtype="float32") as generator:
        assert not generator.capabilities.images
        assert generator.generate(TALKS[2], max_tokens=3).error is None
        with pytest.raises(Unsupported, match="images"):
            generator.generate(TALKS[0], max_tokens=3)


def test_what_a_processor_lacks_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tiny_pictures.mistral3(tmp_path)
    with memserve.generator(str(folder), backend="hf", dtype="float32") as generator:
        assert generator.generate(TALKS[2], max_tokens=3).error is None
        assert generator.capabilities.images == (find_spec("torchvision") is not None)
    assert generator.capabilities.images or "pip install torchvision" in caplog.text


@pytest.mark.parametrize("kind", ["T5", "CLIP", "Whisper"])
def test_what_is_not_driven_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    import transformers

    sizes = {"T5": {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 128}}
    small = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
             "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}  # fmt: skip
    config = getattr(transformers, f"{kind}Config")(**sizes.get(kind, small if kind == "Whisper" else {}))
    name = {"CLIP": "CLIPModel"}.get(kind, f"{kind}ForConditionalGeneration")
    if kind == "CLIP":
        config = transformers.CLIPConfig(
            text_config={**tiny_pictures.PLAIN}, vision_config=tiny_pictures.VISION, projection_dim=16
        )
    getattr(transformers, name)(config).save_pretrained(tmp_path)
    tiny_hf.tokenizer(tmp_path)
    with pytest.raises(MemserveError, match=kind.lower()) as caught:
        memserve.generator(str(tmp_path), backend="hf")
    assert not isinstance(caught.value, BackendMissing)
