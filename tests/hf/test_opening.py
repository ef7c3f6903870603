"""Opening and closing: typed errors for what cannot be served, nothing left behind."""

from __future__ import annotations

import gc
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tiny_hf import causal, encoder, tokenizer

import memserve
from memserve import errors

pytestmark = pytest.mark.engine("hf")


def opened(folder, **options):
    return memserve.generator(str(folder), backend="hf", **options)


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    causal(tmp_path, vocab_size=40)
    with pytest.raises(errors.ModelUnreadable, match="do not belong together") as caught:
        opened(tmp_path)
    assert caught.value.field == "vocab"


def test_a_template_that_fails_is_named(tmp_path):
    causal(tmp_path, template="{{ messages[0].content + 3 }}")
    with pytest.raises(errors.ModelUnreadable, match="chat template") as caught:
        opened(tmp_path)
    assert caught.value.field == "chat_template"


def test_a_template_may_refuse_messages(tmp_path):
    refusing = "{% if messages|length > 1 %}{{ raise_exception('one message only') }}{% endif %}"
    template = refusing + "{{ messages[0].content }}"
    causal(tmp_path, template=template)
    with opened(tmp_path) as generator:
        two = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
        with pytest.raises(errors.InvalidInput, match="one message only"):
            generator.generate(two, max_tokens=1)


def test_without_a_template_text_goes_as_it_is(tmp_path):
    causal(tmp_path, template=None)
    with opened(tmp_path) as generator:
        assert not generator.capabilities.chat
        with pytest.raises(errors.Unsupported):
            generator.generate("the river", max_tokens=1)
        assert generator.generate(memserve.Raw("the river"), max_tokens=1).usage.prompt_tokens == 2


def test_raw_text_gets_the_tokenizers_bos_once(tmp_path):
    causal(tmp_path, bos=True)
    with opened(tmp_path) as generator:
        assert generator.count_tokens(memserve.Raw("the river")) == 3
        assert generator.count_tokens(memserve.Raw("<s> the river")) == 3


def test_weights_of_another_architecture_are_refused(tmp_path):
    causal(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 5}))
    with pytest.raises(errors.ModelUnreadable, match="lacks") as caught:
        opened(tmp_path)
    assert "layers.4" in caught.value.field


def test_weights_of_another_shape_are_refused(tmp_path):
    causal(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "intermediate_size": 48}))
    with pytest.raises(errors.ModelUnreadable):
        opened(tmp_path)


def test_an_unknown_architecture_is_refused(tmp_path):
    causal(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "no_such_model"}))
    with pytest.raises(errors.ModelUnreadable, match="no_such_model"):
        opened(tmp_path)


def test_an_encoder_generates_nothing(tmp_path):
    encoder(tmp_path, "T5", "EncoderModel", d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    with pytest.raises(errors.ModelUnreadable):
        opened(tmp_path)


def test_code_of_the_checkpoint_is_not_run(tmp_path):
    tokenizer(tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    auto = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto}))
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    with pytest.raises(errors.Unsupported, match="own code"):
        opened(tmp_path)


def test_what_does_not_fit_is_refused_before_loading(tmp_path, monkeypatch):
    causal(tmp_path)
    monkeypatch.setattr("memserve_hf.opening.checkpoint.free_bytes", lambda device: 1000)
    monkeypatch.setattr("memserve_hf.generating.load_model", lambda *words: pytest.fail("it was loaded"))
    with pytest.raises(errors.DoesNotFit, match="GiB free"):
        opened(tmp_path)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(errors.UnknownName, match="nowhere"):
        opened(tmp_path / "nowhere")


def test_closing_ends_the_thread_and_lets_the_model_go(tmp_path):
    import torch

    causal(tmp_path)

    def largest() -> int:
        gc.collect()
        return sum(1 for thing in gc.get_objects() if type(thing) is torch.nn.Embedding)

    before, threads = largest(), threading.active_count()
    generator = opened(tmp_path)
    generator.generate("the river", max_tokens=2)
    assert largest() > before
    generator.close()
    generator.close()
    assert threading.active_count() == threads
    assert largest() == before
    with pytest.raises(errors.Closed):
        generator.generate("the river", max_tokens=2)


def test_closing_wakes_whoever_waits(tmp_path):
    causal(tmp_path)
    generator = opened(tmp_path)
    stepper = generator._engine._loop.stepper
    whole = stepper.decode
    stepper.decode = lambda: (time.sleep(0.02), whole())[1]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(generator.generate, [7] * 20, max_tokens=200)
        time.sleep(0.3)
        generator.close()
        with pytest.raises(errors.Closed):
            waiting.result(timeout=20)


@pytest.mark.parametrize("step", ["prefill", "decode"])
def test_an_engine_that_breaks_says_so_and_goes_on(tmp_path, step):
    causal(tmp_path)
    with opened(tmp_path) as generator:
        stepper = generator._engine._loop.stepper
        whole = getattr(stepper, step)

        def broken(*_):
            raise RuntimeError("CUDA error: device lost")

        setattr(stepper, step, broken)
        with pytest.raises(errors.EngineFailed, match="device lost"):
            generator.generate("the river", max_tokens=4)
        setattr(stepper, step, whole)
        assert generator.generate("the river", max_tokens=4).error is None
