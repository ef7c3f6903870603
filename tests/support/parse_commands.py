"""Parses command lines with an engine's own parser.

python parse_commands.py ENGINE < commands.json > parsed.json

One entry a command: what the parser made of it, or {"refused": its words}. Runs with the engine's Python
files first on the path, and imports nothing of memserve.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
from importlib import import_module
from typing import Any

SIZES = {"tp_size": "tensor", "pp_size": "pipeline", "dp_size": "data"}


def vllm() -> Any:
    """vLLM's parser of `vllm serve`, its checks included; its home moved twice between 0.19 and 0.33."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    for home in ("common", "launchers", "openai"):
        with contextlib.suppress(ModuleNotFoundError):
            cli = import_module(f"vllm.entrypoints.{home}.cli_args")
            break
    parser = cli.make_arg_parser(FlexibleArgumentParser())

    def parsed(words: list[str]) -> dict[str, Any]:
        told = parser.parse_args(words[2:])
        cli.validate_parsed_serve_args(told)
        return {**vars(AsyncEngineArgs.from_cli_args(told)), "model": told.model_tag}

    return parsed


def sglang() -> Any:
    """SGLang's parser of `sglang.launch_server`; sizes were named in full before 0.5.2."""
    from sglang.srt.server_args import ServerArgs

    parser = argparse.ArgumentParser()
    ServerArgs.add_cli_args(parser)

    def parsed(words: list[str]) -> dict[str, Any]:
        told = vars(parser.parse_args(words[3:]))
        old = {name: f"{word}_parallel_size" for name, word in SIZES.items()}
        return {**told, **{name: told[other] for name, other in old.items() if other in told}}

    return parsed


def lmdeploy() -> Any:
    """LMDeploy's parser, and TurboMind's config class with what it read."""
    from dataclasses import fields

    from lmdeploy.cli.cli import CLI
    from lmdeploy.cli.serve import SubCliServe
    from lmdeploy.messages import TurbomindEngineConfig

    SubCliServe.add_parsers()
    names = {field.name for field in fields(TurbomindEngineConfig)}

    def parsed(words: list[str]) -> dict[str, Any]:
        told = vars(CLI.parser.parse_args(words[1:]))
        given = {name: told[name] for name in names & set(told) if told[name] is not None}
        config = TurbomindEngineConfig(**given)
        return {**told, **vars(config)}

    return parsed


def judged(parse: Any, words: list[str]) -> dict[str, Any]:
    """What the parser made of one command."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            found = parse(words)
    except (SystemExit, Exception) as error:
        return {"refused": said.getvalue()[-500:] or f"{type(error).__name__}: {error}"}
    plain = (str, int, float, bool, type(None))
    return {name: value for name, value in found.items() if isinstance(value, plain)}


def main() -> None:
    """Whatever an engine prints while it is imported goes elsewhere than the answer."""
    answer, sys.stdout = sys.stdout, sys.stderr
    parse = globals()[sys.argv[1]]()
    json.dump([judged(parse, words) for words in json.load(sys.stdin)], answer)


if __name__ == "__main__":
    main()
