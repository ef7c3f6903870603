"""Reads an engine's command line as its own parser does: spellings, abbreviations, switches, files."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from memserve import files, shell
from memserve.errors import InvalidInput, UnknownName, printable

LONGEST = 20_000
SHORTEST = 4
"""Letters of a beginning that stands for a flag."""
ALIKE = 0.66
"""How like a flag a word must be spelled to be taken for it, as difflib counts."""
MOST_COUNT = 4096
_ASSIGNMENT = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*=")
_NAME = (
    r"(?!-*(?:classifier_from|eos|bos|pad)_token)"  # of a vocabulary
    r"(?:[\w-]{0,60}[-_])?(?:key|tok(?:en?)?|secret|passwd)|[\w-]{0,60}(?:api[-_]?k\w*|password|credentials?)"
)
_SECRET = re.compile(rf"(?:^|.*[^\w-])[-\u2013\u2014]*(?:{_NAME})$", re.IGNORECASE | re.DOTALL)
MASK = "***"
_DASHES = "-\u2013\u2014"
_VALUE = r"""(?:"(?:[^"\\]|\\.)*"?|'[^']*'?|\[[^\]]*\]?|[^\s,;&}"'\[]+)"""
_WRITTEN = (
    re.compile(rf"""((?<![\w-])(?:-*(?:{_NAME}))(?:["']?\s*=|["']\s*:)\s*){_VALUE}""", re.IGNORECASE),
    re.compile(rf"""((?<![\w-])-+(?:{_NAME})(?=\s))(?:\s+(?!-\D){_VALUE})+""", re.IGNORECASE),
    re.compile(r"(://)[^/\s@]+(?=@)"),
)
"""Keys in a text: `NAME=KEY` and JSON, `--name KEY ...`, and the user of an address."""
_STREAM = re.compile(r"(?<=\s)[12](?=>)")
"""A stream's number: `2> log` has one, `-tp 2 > log` has none."""
_LOG = re.compile(r"(?:(?:\0[12] )?(?:>|>>|>&|&>|&>>) \S+ ?|\| tee (?:-a )?\S+ ?)*&?")
"""Where a command's output goes, and that it goes on behind: what stands at its end in most scripts."""
_HUMAN = re.compile(r"^(\d+(?:\.\d+)?)([kKmMgGtT])$")
_DECIMAL = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_WRAPPERS = frozenset({"nohup", "exec", "sudo", "time", "env", "numactl", "taskset", "uvx", "srun"})
_RUNNERS = frozenset({"uv", "poetry", "pipenv", "pixi", "hatch", "rye", "conda", "mamba", "micromamba"})
"""`uv run`, `conda run -n NAME`: what stands behind `run` is the program."""
_TAKES = re.compile(r"-[a-zA-Z]|--(with|from|python|project|directory|extra|group|env-file|name|prefix)")
"""Their options that take the next word."""


@dataclass(frozen=True)
class Grammar:
    """What one engine's parser knows beyond `--name value`."""

    aliases: Mapping[str, str] = field(default_factory=dict)
    """Other spellings, without dashes, to the long name."""
    switches: frozenset[str] = frozenset()
    """Long names that take no value."""
    lists: frozenset[str] = frozenset()
    """Long names that take several values."""
    known: frozenset[str] = frozenset()
    """Long names that take one value."""
    engine: str = ""
    """Whose flags these all are: any other is refused. Empty: others are read, too."""

    @cached_property
    def names(self) -> frozenset[str]:
        """Every spelling of every flag."""
        return self.known | self.switches | self.lists | self.aliases.keys()


@dataclass(frozen=True)
class Words:
    """A command line taken apart: bare words, and each option's last value."""

    bare: tuple[str, ...]
    options: Mapping[str, str]

    def text(self, name: str) -> str | None:
        """An option as written."""
        return self.options.get(name)

    def given(self, numbers: Iterable[str] = ()) -> tuple[tuple[str, str], ...]:
        """Every option with its value, but for `numbers` that are said to be none."""
        unset = {name for name in numbers if self.number(name) is None}
        return tuple((name, value) for name, value in self.options.items() if name not in unset)

    def flag(self, name: str) -> bool:
        """Whether a switch is on."""
        return self.options.get(name, "false").lower() not in ("false", "0", "no")

    def integer(self, name: str) -> int | None:
        """A whole number; 8k and 8K are 8,000 and 8,192."""
        value = self.options.get(name)
        if value is None or value.lower() in ("none", "null", ""):
            return None
        found = integer(value, f"--{name}")
        if found < 0:
            raise InvalidInput(f"--{name} must be 0 or more, not {found}")
        return found

    def number(self, name: str) -> float | None:
        """A fraction."""
        value = self.options.get(name)
        if value is None or value.lower() in ("none", "null", ""):
            return None
        try:
            found = float(value)
        except ValueError:
            found = float("nan")
        if not 0 <= found < 1e15:
            raise InvalidInput(f"--{name} must be a number, not {value[:40]!r}")
        return found

    def count(self, name: str) -> int:
        """Of at least one, which is also what is meant where nothing is said."""
        found = self.integer(name)
        if found is not None and not 1 <= found <= MOST_COUNT:
            raise InvalidInput(f"--{name} must be from 1 to {MOST_COUNT}, not {found}")
        return found or 1

    def share(self, name: str) -> float | None:
        """Above 0 and at most 1."""
        found = self.number(name)
        if found is not None and not 0 < found <= 1:
            raise InvalidInput(f"--{name} must lie in (0, 1], not {found}")
        return found


def integer(value: str, name: str) -> int:
    """A whole number as engines read it."""
    human = _HUMAN.match(value.strip())
    if human:
        return int(float(human[1]) * {**_DECIMAL, **_BINARY}[human[2]])
    try:
        found = int(value)
    except ValueError:
        raise InvalidInput(f"{name} must be a whole number, not {value[:40]!r}") from None
    if abs(found) > 10**15:
        raise InvalidInput(f"{name} is out of range: {value[:40]}")
    return found


def split(command: str | Sequence[str]) -> tuple[str, ...]:
    """A command's words, without what stands before the program (variables, nohup, ...)."""
    return taken_apart(command)[1]


def taken_apart(command: str | Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The variables that are set before the program, and the program with its words."""
    words, variables = _words(command), {}
    while words and (_ASSIGNMENT.match(words[0]) or _wraps(words)):
        name, sign, value = words.pop(0).partition("=")
        if sign:
            variables[name] = value
        elif name in _RUNNERS or name in ("uvx", "srun"):
            del words[: name in _RUNNERS]
            while words and words[0].startswith("-"):
                del words[: 1 + bool(_TAKES.fullmatch(words[0]))]
    if not words:
        raise InvalidInput(
            "the command is empty", hint="give for instance 'vllm serve MODEL --max-model-len 8192'"
        )
    return variables, tuple(words)


def _wraps(words: Sequence[str]) -> bool:
    return words[0] in _WRAPPERS or (words[0] in _RUNNERS and words[1:2] == ["run"])


def _words(command: str | Sequence[str]) -> list[str]:
    if isinstance(command, list | tuple):
        return [str(word) for word in command]
    if not isinstance(command, str):
        raise InvalidInput(f"a command is a line or a list of words, not {type(command).__name__}")
    if len(command) > LONGEST:
        raise InvalidInput(f"the command is {len(command):,} characters long; at most {LONGEST:,}")
    import shlex  # only a check needs it; a plan loads this module, too

    line = command.replace("\\\n", " ")
    signs = shlex.shlex(_STREAM.sub(r"\0\g<0>", line), posix=True, punctuation_chars=shell.SIGNS)
    signs.whitespace_split, signs.commenters = True, ""
    try:
        parts = list(signs)
        words = shlex.split(line)
    except ValueError as error:
        raise InvalidInput(f"the command cannot be read: {error}", hint="close every quote") from None
    at = next((place for place, word in enumerate(parts) if shell.is_sign(word)), None)
    if at is None:
        return words
    if not _LOG.fullmatch(" ".join(parts[at:])) or any(not word for word in parts):
        sign = parts[at]
        raise InvalidInput(f"the command holds the shell's {sign!r}", hint="give the engine's command alone")
    return [word.replace("\0", "") for word in parts[: at - parts[at - 1].startswith("\0")]]


def masked(words: Sequence[str], variables: Mapping[str, str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """A command and its variables to be shown: keys and tokens are not."""
    shown, hide = list[str](), False
    for word in words:
        name, equals, _ = word.partition("=")
        hide = hide and not _is_option(word)
        secret = bool(_SECRET.match(name))
        shown.append(MASK if hide else f"{name}={MASK}" if equals and secret else masked_text(word))
        hide = hide or (secret and not equals and word[0] in _DASHES)
    safe = {name: MASK if _SECRET.match(name) else masked_text(value) for name, value in variables.items()}
    return tuple(shown), safe


def masked_text(text: str) -> str:
    """A text of somebody else's that may hold a command: keys and tokens are not shown."""
    for kind, put in zip(_WRITTEN, (rf"\1{MASK}", rf"\1 {MASK}", rf"\1{MASK}"), strict=True):
        text = kind.sub(put, text)
    return text


def shown(words: Sequence[str], variables: Mapping[str, str] | None = None) -> str:
    """A command on one line, without keys: every command that is printed goes through here."""
    import shlex

    safe, env = masked(words, variables or {})
    return printable(shlex.join([*(f"{name}={value}" for name, value in env.items()), *safe]))


def read(words: Iterable[str], grammar: Grammar) -> Words:
    """Take options and bare words apart."""
    bare: list[str] = []
    options: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not _is_option(word):
            bare.append(word)
            continue
        name, value = _name(word, grammar)
        if value is None:
            name, value = _value(name, rest, grammar)
        options[name] = value
    return Words(tuple(bare), {**_from_file(options, grammar), **options})


def _is_option(word: str) -> bool:
    return len(word) > 1 and word[0] == "-" and not re.match(r"^-\d", word)


def _name(word: str, grammar: Grammar) -> tuple[str, str | None]:
    name, equals, value = word.lstrip("-").partition("=")
    name = name.replace("_", "-")
    whole, dot, key = name.partition(".")
    inner = f".{key}" if dot and whole in grammar.names and name not in grammar.names else ""
    return _full(name.removesuffix(inner), grammar) + inner, value if equals else None


def _full(name: str, grammar: Grammar) -> str:
    if name in grammar.names or name.removeprefix("no-") in grammar.switches:
        return grammar.aliases.get(name, name)
    begun = {full for full in grammar.names if full.startswith(name)} if len(name) >= SHORTEST else set()
    meant = {grammar.aliases.get(full, full) for full in begun}
    if len(meant) == 1 or not grammar.engine:
        return meant.pop() if len(meant) == 1 else name
    raise _unknown(name, grammar)


def _unknown(name: str, grammar: Grammar) -> UnknownName:
    """A flag that no release has, with those that are spelled like it."""
    from difflib import get_close_matches

    near = tuple(f"--{one}" for one in get_close_matches(name, sorted(grammar.names), n=3, cutoff=ALIKE))
    meant = f": did you mean {' or '.join(near)}?" if near else ""
    return UnknownName(f"no release of {grammar.engine} has --{name[:60]}{meant}", suggestions=near)


def _value(name: str, rest: list[str], grammar: Grammar) -> tuple[str, str]:
    """The value that follows an option; a switch, or an option followed by another, has none."""
    if name in grammar.switches:
        return name, rest.pop(0) if rest and rest[0].lower() in ("true", "false") else "true"
    positive = name.removeprefix("no-")
    if positive != name and positive in grammar.switches:
        return positive, "false"
    if name in grammar.lists:
        values = []
        while rest and not _is_option(rest[0]):
            values.append(rest.pop(0))
        return name, " ".join(values)
    if rest and not _is_option(rest[0]):
        return name, rest.pop(0)
    if name in grammar.known:
        raise InvalidInput(f"--{name} needs a value")
    return name, "true"


def _from_file(options: Mapping[str, str], grammar: Grammar) -> dict[str, str]:
    """What `--config FILE` says; the command line itself wins."""
    path = options.get("config")
    if path is None or not path.endswith((".yaml", ".yml")):
        return {}
    try:
        text = files.text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"--config {path[:80]}: cannot be read ({type(error).__name__})") from None
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.split(" #", 1)[0].partition(":")
        if colon and not line.startswith((" ", "#", "-")):
            name = _full(key.strip().strip("\"'").replace("_", "-"), grammar)
            found[name] = value.strip().strip("\"'")
    return found
