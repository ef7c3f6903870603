"""A key that a command or a file tells: read when opened and when refused, by every backend, never shown."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from faulty_server import FaultyServer, reply

import memserve
from memserve import errors
from memserve.http import Call, Mask, Secret, StaticKey
from memserve.http.keys import KeySource, Renewing, sourced

if TYPE_CHECKING:
    from pathlib import Path

OPENED: dict[str, dict[str, Any]] = {
    "openai": {"model": "m", "dialect": "generic"},
    "anthropic": {"model": "claude-haiku-4-5"},
    "gemini": {"model": "gemini-2.5-flash"},
    "bedrock": {"model": "amazon.nova-lite-v1:0", "region": "us-east-1"},
    "pangu": {"project_id": "p", "deployment_id": "d"},
}
NO = reply(401, {"error": {"message": "the key old-key-12345 is wrong"}})


def everything(error: BaseException | None) -> str:
    words = []
    while error is not None:
        words += [str(error), repr(vars(error)), repr(error.args)]
        error = error.__cause__ or error.__context__
    return " ".join(words)


def script(folder: Path, words: str) -> list[str]:
    path = folder / "tell.py"
    path.write_text(words)
    return [sys.executable, str(path)]


def keys_of(server: FaultyServer) -> list[str]:
    names = ("authorization", "x-api-key", "x-goog-api-key", "x-apig-appcode")
    return [next(post.headers[n] for n in names if n in post.headers).split(" ")[-1] for post in server.posts]


@pytest.mark.parametrize("backend", OPENED)
@pytest.mark.parametrize("kind", ["key_file", "key_command"])
def test_a_refused_key_is_asked_for_anew_by_every_backend(backend, kind, server, tmp_path, quick, caplog):
    caplog.set_level(logging.DEBUG)
    file = tmp_path / "key"
    file.write_text("old-key-12345\n")
    tell = script(tmp_path, f"print(open({str(file)!r}).read())")
    source = {"key_file": str(file), "key_command": tell}[kind]
    options = {**OPENED[backend], kind: source, "base_url": server.base_url}
    name = options.pop("model", None)
    with memserve.generator(name, backend=backend, **options) as model:
        server.will(NO)
        with pytest.raises(errors.AuthenticationFailed) as caught:  # the same key is not sent twice
            model.generate("hi")
        assert keys_of(server) == ["old-key-12345"]
        assert "old-key-12345" not in everything(caught.value) + caplog.text + repr(vars(model))
    with memserve.generator(name, backend=backend, **options) as model:
        file.write_text("new-key-67890")
        server.posts.clear()
        server.will(NO, reply(400, {"error": {"message": "new-key-67890 is fine, the rest is not"}}))
        with pytest.raises(errors.BadRequest) as refused:
            model.generate("hi")
        assert keys_of(server) == ["old-key-12345", "new-key-67890"]
        assert "new-key-67890" not in everything(refused.value) + caplog.text


@pytest.mark.parametrize(
    ("words", "said"),
    [("", "tells no key"), ("print('a\\nb')", "more than a key"), ("raise SystemExit(3)", "ended with 3"),
     ("while 1: print('x' * 1000)", "more than a key"),
     ("import subprocess, time; subprocess.Popen(['sleep', '1000']); time.sleep(1000)", "within 1 s"),
     ("print('schlüssel')", "more than a key")],
)  # fmt: skip
def test_a_command_that_tells_no_key_is_an_error_and_never_a_wait(words, said, tmp_path, monkeypatch):
    monkeypatch.setattr(KeySource, "_SECONDS", 1.0 if "sleep" in words else 60.0)
    command = [*script(tmp_path, words), "--token", "very-secret-argument"]
    with pytest.raises(errors.InvalidInput, match=said) as caught:
        KeySource(command, None)
    assert "very-secret" not in everything(caught.value)


@pytest.mark.parametrize(
    "options",
    [{"key_command": "true", "key_file": "x"}, {"key_command": "true", "api_key": "k"},
     {"key_file": "/nowhere/at/all"}, {"key_command": "/nowhere/at/all --key"}, {"key_command": "'"},
     {"key_command": ""}, {"key_command": 5}, {"key_command": ["cat", 5]}, {"key_command": "echo k | cat"},
     {"key_command": "echo k && true"}],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(options):
    with pytest.raises(errors.InvalidInput):
        memserve.generator("m", backend="openai", base_url="http://127.0.0.1:9/v1", **options)


def test_many_refusals_ask_once(tmp_path, monkeypatch):
    file = tmp_path / "key"
    file.write_text("old")
    source, read = KeySource(None, str(file)), []
    real = source._read
    monkeypatch.setattr(source, "_read", lambda: (read.append(1), real())[1])
    file.write_text("new")
    old, told = source.secret, []
    threads = [threading.Thread(target=lambda: told.append(source.replace(old))) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert (told, len(read), source.secret.reveal()) == ([True] * 8, 1, "new")


async def test_a_key_replaced_while_others_are_in_flight(tmp_path):
    """Each request is judged by the key that it was sent with, and is signed anew with the newest."""
    file = tmp_path / "key"
    file.write_text("old-key")
    source = KeySource(None, str(file))
    signer = Renewing(StaticKey({"Authorization": Secret("Bearer old-key")}), source, Mask())
    refused = errors.AuthenticationFailed("no", status=401)
    sent, replaced = asyncio.Event(), asyncio.Event()

    async def late() -> tuple[bool, str]:
        await signer.sign(Call("POST", "http://h", {}, None))
        sent.set()
        await replaced.wait()
        file.unlink()  # whoever asks the source again fails
        renewed = await signer.renew(refused)
        return renewed, (await signer.sign(Call("POST", "http://h", {}, None))).headers["Authorization"]

    waiting = asyncio.create_task(late())
    await sent.wait()
    file.write_text("new-key")
    await signer.sign(Call("POST", "http://h", {}, None))
    assert await signer.renew(refused)
    replaced.set()
    assert await waiting == (True, "Bearer new-key")
    await signer.sign(Call("POST", "http://h", {}, None))
    assert not await signer.renew(refused)  # the new one is refused, and there is no other


def test_beside_a_certificate_key_file_is_the_certificates():
    options = {"cert_file": "c.pem", "key_file": "c.key"}
    assert sourced(options) == options
