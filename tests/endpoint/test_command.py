"""The command itself, as a process: its ready line, its key, its end."""

from __future__ import annotations

import json
import signal
import stat
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from extras import need
from waiting import until

from memserve.errors import InvalidInput
from memserve.serve.__main__ import main
from memserve.serve.server import private

httpx = need("httpx", "test")
ROOT = Path(__file__).parents[2]
BODY = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 8}


@pytest.mark.parametrize("text", ["-----BEGIN KEY-----\nabc\n-----END KEY-----\n", '{"models": []}\n'])
def test_a_file_that_holds_something_else_is_not_made_a_key(tmp_path, text):
    (file := tmp_path / "id_rsa").write_text(text)
    with pytest.raises(InvalidInput, match="something else than a key"):
        private(file, "key")
    assert file.read_text() == text


@pytest.mark.parametrize("text", ['{"models": []}', '{"models": {}}', "[]"])
def test_a_configuration_without_a_model_is_refused(tmp_path, capsys, text):
    (file := tmp_path / "served.json").write_text(text)
    assert main(["--config", str(file)]) == 2
    assert str(file) in capsys.readouterr().err


def test_a_key_that_others_can_read_is_refused_and_kept(tmp_path):
    (file := tmp_path / "key").write_text("a-key-of-ones-own\n")
    for mode in (0o644, 0o640, 0o602):
        file.chmod(mode)
        with pytest.raises(InvalidInput, match=r"others can read.*chmod 600"):
            private(file, "another")
        assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == ("a-key-of-ones-own\n", mode)


@pytest.mark.slow
def test_a_key_is_made_and_kept_to_its_owner(start, tmp_path):
    file = tmp_path / "mine"
    file.write_text("")
    file.chmod(0o644)
    process, url, where = start("--backend", "toy", "--name", "a", "--name", "b", "--key-file", str(file))
    key = file.read_text().strip()
    assert (where, stat.S_IMODE(file.stat().st_mode), len(key) >= 32) == (str(file), 0o600, True)
    with httpx.Client(headers={"authorization": f"Bearer {key}"}) as client:
        rows = client.get(f"{url}/models").json()["data"]
        assert [row["id"] for row in rows] == ["a", "b"]
        assert all([*row["tasks"]] == ["generate", "embed", "rerank"] for row in rows)
        assert client.post(f"{url}/chat/completions", json=BODY).status_code == 200
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err.strip(), key in out) == (0, "stopped", False)
    assert start("--backend", "toy", "--key-file", str(file))[2] == str(file)
    assert file.read_text().strip() == key, "a key of one's own is kept, so that callers go on"


@pytest.mark.slow
def test_the_environments_key_is_asked_for_and_written_nowhere(start, tmp_path, monkeypatch):
    monkeypatch.setenv("MEMSERVE_API_KEY", "from-the-environment")
    process, url, where = start("--backend", "toy", "--key-file", str(tmp_path / "key"))
    assert where == "$MEMSERVE_API_KEY" and not (tmp_path / "key").exists()
    codes = [httpx.get(f"{url}/models", headers={"authorization": f"Bearer {key}"}).status_code
             for key in ("from-the-environment", "another")]  # fmt: skip
    process.terminate()
    assert codes == [200, 401] and "from-the-environment" not in "".join(process.communicate(timeout=60))


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_end_lets_answers_finish(start, sign):
    process, url, where = start("--backend", "toy")
    headers = {"authorization": f"Bearer {Path(where).read_text().strip()}"}
    slow = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 200}
    answers: list[int] = []

    def ask() -> None:
        with suppress(httpx.TransportError):  # it came when nobody listened any more
            answers.append(
                httpx.post(f"{url}/chat/completions", json=slow, headers=headers, timeout=60).status_code
            )

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    counts = url.replace("/v1", "/metrics")
    until(lambda: answers or "in_flight 5\n" in httpx.get(counts, headers=headers).text)
    process.send_signal(sign)
    for thread in threads:
        thread.join()
    assert process.wait(60) == 0
    assert set(answers) == {200}


def test_several_models_from_a_file(start, tmp_path):
    config = tmp_path / "models.json"
    rows = [
        {"id": "x", "backend": "toy", "task": "generate"},
        {"id": "y", "backend": "toy"},
        {"id": "z", "route": ["x", "y"]},
    ]
    config.write_text(json.dumps({"models": rows}))
    _, url, where = start("--config", str(config))
    with httpx.Client(headers={"authorization": f"Bearer {Path(where).read_text().strip()}"}) as client:
        assert sorted({row["id"] for row in client.get(f"{url}/models").json()["data"]}) == ["x", "y", "z"]
        for name in "xyz":
            body = {**BODY, "model": name, "stream": name == "z"}
            assert client.post(f"{url}/chat/completions", json=body).status_code == 200


@pytest.mark.parametrize(
    "row",
    [5, {"id": "a"}, {"id": "a", "backend": "toy", "more": 1}, {"id": "a", "route": ["b"]}, {"backend": "x"}],
)  # fmt: skip
def test_a_row_that_is_not_understood(row, tmp_path, capsys):
    (tmp_path / "models.json").write_text(json.dumps({"models": [row]}))
    assert main(["--config", str(tmp_path / "models.json")]) != 0
    assert capsys.readouterr().err.count("\n") == 1


def test_without_a_key_on_loopback_alone(start):
    _, url, where = start("--backend", "toy", "--no-key")
    assert where == "none"
    assert httpx.post(f"{url}/chat/completions", json=BODY).status_code == 200


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "one of PLAN, --backend, --config"),
        (("p.json", "--backend", "toy"), "not PLAN and --backend"),
        (("p.json", "--model", "m"), "--model is not for PLAN"),
        (("--backend", "embedded", "--python", "p"), "--python is not for --backend"),
        (("--backend", "embedded", "--no-key", "--host", "0.0.0.0"), "loopback"),
        (("--backend", "embedded", "--options", "x"), "K=V"),
        (("--backend", "nobody"), "nobody"),
        (("--config", "/nowhere.json"), "cannot read"),
        (("--backend", "embedded", "--task", "embed", "--port", "70000"), "1..65535"),
    ],
)
def test_a_malformed_call_is_one_line(words, said, capsys):
    assert main(list(words)) == 2
    assert said in capsys.readouterr().err
