"""memserve compress MODEL --to METHOD: make a smaller checkpoint, and judge what it lost."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memserve import cli
from memserve.errors import DoesNotFit, EngineFailed, InvalidInput, UnknownName

if TYPE_CHECKING:
    from memserve.compress.checks import Order
    from memserve.compress.interpreter import Interpreters
    from memserve.compress.report import Gate
    from memserve.compress.text import Text
    from memserve.engines.making import Method

_SHARE = re.compile(r"(\d{1,4}(?:\.\d{1,4})?)(%?)")
_BYTES = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)\s?(MiB|GiB|MB|GB)")
_UNITS = {"MiB": 2**20, "GiB": 2**30, "MB": 10**6, "GB": 10**9}


def parser() -> cli.Parser:
    """Every option of the command."""
    parser = cli.Parser("compress", __doc__)
    add = parser.add_argument
    add("model", metavar="MODEL", help="a folder, or a hub's id, with 16-bit weights; it is never changed")
    add("--to", metavar="METHOD", action="append", default=[],
        help="fp8, w8a8, w4a16, nvfp4, gptq, awq, nf4, int8, gguf-q4_k_m, layers:N (drops N layers), width:R"
             " (keeps the share R of each MLP); may be repeated: layers:2 and w4a16")  # fmt: skip
    add(
        "--for",
        metavar="SPEC",
        dest="machine",
        help="choose by what runs on these cards: 4xV100, 8x910B4, cpu",
    )
    add("-o", "--output", metavar="FOLDER", type=_target, help="default: ./MODEL-METHOD")
    add("--text", metavar="FILE", help="calibrate and judge on this text, or on a run's requests (.jsonl)")
    add("--samples", metavar="N", type=cli.count, help="calibration samples (default: by method)")
    add("--length", metavar="N", type=cli.count, default=256, help="tokens of a sample (default: 256)")
    add("--window", metavar="N", type=cli.count, default=256, help="tokens of a judged window (default: 256)")
    add("--windows", metavar="N", type=cli.count, default=8, help="windows judged at most (default: 8)")
    add("--eval", metavar="FILE", help='a task of one\'s own: lines {"prompt": ..., "expected": ...}')
    add("--max-loss", metavar="P", type=_share, default=1.0,
        help="the rise of perplexity that is let through, as 2%% (default: 100%%)")  # fmt: skip
    add("--min-speedup", metavar="X", type=cli.amount, help="times as fast as the original")
    add("--memory", metavar="SIZE", type=_bytes, help="the most that the weights may take, as 16GiB")
    add("--python", metavar="PATH", action="append", default=[],
        help="an interpreter that has the library; nothing is installed")  # fmt: skip
    add("--dry-run", action="store_true", help="analyse, check and predict; make nothing")
    add("--json", action="store_true", help="report.json on standard output")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Exit 0: made, within the gate. 1: it cannot be made here, or was refused. 2: malformed."""
    return cli.answer(lambda: _answer(parser().read(argv)), failed=cli.FAILED)


def _answer(args: argparse.Namespace) -> int:
    from memserve import hardware, model
    from memserve.compress import analysis, interpreter, text
    from memserve.compress.checks import Order
    from memserve.compress.report import Gate
    from memserve.engines import making

    if not (args.to or args.machine or args.dry_run):
        raise InvalidInput("say --to METHOD, or --for SPEC to choose one", hint="memserve compress --help")
    machine = hardware.parse(args.machine) if args.machine is not None else None
    vendor = machine.card.vendor if machine else ""
    wanted, spec = making.read([_method(one, vendor) for one in args.to], vendor), model.load(args.model)
    args.model = _place(args.model, spec.id)
    gate = Gate(args.max_loss, args.min_speedup, args.memory)
    found = analysis.strategies(spec, machine, gate) if args.dry_run or not wanted else []
    chosen = [(making.one(each["method"], vendor),) for each in found if machine and not each["refused"]]
    tried: list[tuple[making.Method, ...]] = [wanted] if wanted else [*chosen] or [()]
    given = text.read(args.text), tuple(text.questions(args.eval)), interpreter.Interpreters(args.python)
    orders = [
        Order(spec, one, args.samples, args.length, args.window, args.windows, args.model) for one in tried
    ]
    if wanted:
        orders = [replace(orders[0], missed=analysis.missed(orders[0], machine, gate))]
    if args.dry_run:
        said = analysis.analyse(orders[0], args, found)
        print(json.dumps(said, indent=1) if args.json else analysis.page(said))
        return cli.DONE if said["fits"] else cli.FAILED
    if not orders[0].methods:
        reasons = "; ".join(f"{one['method']}: {one['refused']}" for one in found)
        raise DoesNotFit(f"nothing that can be made runs on {args.machine} within these targets: {reasons}")
    return _make(args, orders, gate, *given)


def _make(args: argparse.Namespace, orders: list[Order], gate: Gate, words: Text,
          asked: tuple[dict[str, Any], ...], pythons: Interpreters) -> int:  # fmt: skip
    """The first that passes the gate; the next where one is refused or cannot be made."""
    from memserve.compress import report
    from memserve.compress.job import Job

    found = {}
    for order in orders:
        folder = args.output or _folder(args.model, order.methods)
        try:
            found = Job(order, folder, words, gate, pythons, asked).run()
        except (DoesNotFit, EngineFailed) as error:
            if order is orders[-1]:
                raise
            cli.tell(str(error))
            continue
        if found["gate"]["passed"]:
            break
        cli.tell(f"refused: {found['gate']['reason']}; it lies in {found['folder']}")
    print(json.dumps(found, indent=1) if args.json else report.page(found))
    return cli.DONE if found["gate"]["passed"] else cli.FAILED


def _method(word: str, vendor: str) -> str:
    """A word of `--to`, or as the planner reads it."""
    from memserve.engines import making
    from memserve.plan.query import quantization_name

    rows, name = making.table(vendor), word.strip().lower()
    if re.split("[:-]", name)[0] in rows["methods"] or name in rows["refused"]:
        return name
    try:
        return quantization_name(word)
    except UnknownName as unknown:
        if unknown.suggestions:
            raise
        return word


def _place(word: str, name: str) -> str:
    """The folder of a file in it; the hub's id of a short name."""
    path = Path(word)
    if not path.exists():
        return name
    return str(path.parent) if path.is_file() and path.suffix != ".gguf" else word


def _folder(model: str, methods: tuple[Method, ...]) -> Path:
    """./MODEL-METHODS, as the planner names it."""
    short = Path(model).name if Path(model).name.strip(".") else Path(model).resolve().name
    return Path("-".join((short, *(one.name.replace(":", "-") for one in methods))))


def _share(text: str) -> float:
    found = _SHARE.fullmatch(text.strip())
    if not found:
        raise argparse.ArgumentTypeError(f"a share such as 2% is needed, not {text[:40]!r}")
    share = float(found[1]) / (100 if found[2] else 1)
    if share >= 1 and not found[2]:
        raise argparse.ArgumentTypeError(f"{found[1]} may mean {found[1]}% or {share * 100:g}%: say which")
    return share


def _bytes(text: str) -> int:
    found = _BYTES.fullmatch(text.strip())
    if not found:
        raise argparse.ArgumentTypeError(f"a size such as 16GiB is needed, not {text[:40]!r}")
    return int(float(found[1]) * _UNITS[found[2]])


def _target(text: str) -> Path:
    return Path(os.path.normpath(text))


if __name__ == "__main__":
    sys.exit(main())
