"""Judges one deployment by an engine's rows: each row says when it refuses, in a sentence, with its source.

A backend's `rules` is a mapping. `versions`: the releases that the planner may pin, newest first.
`architectures`: which releases know which model classes. `rows`: refusals, each with `id`, `when`, `check`,
`since`, `before`, `says`, `source` and `read` (the date).
`when` maps facts to conditions: a value, a list of values, {"not": [...]}, {"none_of": [...]}, {"below": n}
or {"at_least": n}; all must hold. `check` names an arithmetic test of `checks.py`. A row refuses if its
versions, its conditions and its check all apply. The first row that refuses is the answer.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from memserve.engines.deployment import Deployment
from memserve.engines.rules import within
from memserve.engines.rules.facts import CHECKS, deployment_facts, machine_facts, model_facts
from memserve.hardware.machine import Machine
from memserve.model.spec import ModelSpec, remembered

Open: TypeAlias = "tuple[Mapping[str, Any], Mapping[str, Any]]"
"""A row, and those of its conditions that are not yet known to hold."""
CARD_FACTS = frozenset({"vendor", "sm", "soc", "card", "capability", "fork"})
Subject: TypeAlias = Literal["request", "model", "card", "vendor"]
"""What a row refuses; an engine of a few architectures alone is as far from a wish as another maker's."""
REQUEST_CHECKS = frozenset(name for name in CHECKS if not name.startswith("architecture"))
"""Arithmetic over what was asked for: another request on the same card would pass."""
MODEL_CHECKS = frozenset({None, *(name for name in CHECKS if name.startswith("architecture"))})
SPREAD_FACTS = frozenset(
    {"cards", "cards_per_node", "nodes", "tp", "pp", "dp", "expert_parallel", "attention_data", "world"}
)


class Refusal(NamedTuple):
    """The rule that forbids a combination: its id, a sentence a user understands, where it was read."""

    rule: str
    reason: str
    source: str
    check: str = ""
    """The arithmetic test that failed, if it was one."""


class Judge:
    """One engine version's rows over one model and machine, ready for many deployments.

    Conditions on the model and the machine are settled once, so that a deployment meets few rows.
    """

    def __init__(self, rules: Mapping[str, Any], version: str, model: ModelSpec, machine: Machine) -> None:
        self.rules = rules
        table = rules.get("architectures", {})
        row = table.get("rows", {}).get(model.architecture)
        known = {
            **model_facts(model), "version": version, "fork": "fork" in version.lower(),
            "architecture_table": table, "architecture_row": row,
        }  # fmt: skip
        place = machine_facts(machine)
        self.known = {**place, **known}
        # the memory holds `rules` too, so that no other mapping can come by its id
        key = ("rows", id(rules), version)
        _, rows = remembered(model, key, lambda: (rules, settled(_rows_of(rules, version), known)))
        self.open = settled(rows, place)

    def card(self) -> Refusal | None:
        """The rule that refuses the card whatever is run on it."""
        rows = (left for left in self.open if _about_card(left[0]))
        return first_refusal(rows, self.known)

    def model(self) -> Refusal | None:
        """The rule that refuses this model on this card whatever is asked of the engine."""
        rows = (left for left in self.open if not left[1] and left[0].get("check") in MODEL_CHECKS)
        return first_refusal(rows, self.known)

    def dtype(self, deployment: Deployment) -> Refusal | None:
        """The rule that refuses what the deployment computes in."""
        rows = (left for left in self.open if "dtype" in left[1])
        return first_refusal(rows, {**self.known, **deployment_facts(deployment)})

    def __call__(self, deployment: Deployment) -> Refusal | None:
        """The first rule that refuses this deployment."""
        return first_refusal(self.open, {**self.known, **deployment_facts(deployment)})


def settled(rows: Iterable[Open], known: Mapping[str, Any]) -> list[Open]:
    """The rows that may still refuse, each with the conditions that the facts `known` leave open."""
    found: list[Open] = []
    for row, conditions in rows:
        left: dict[str, Any] = {}
        for fact, condition in conditions.items():
            if fact not in known:
                left[fact] = condition
            elif not _holds(condition, known[fact]):
                break
        else:
            found.append((row, left))
    return found


def _about_card(row: Mapping[str, Any]) -> bool:
    return "check" not in row and CARD_FACTS.issuperset(row.get("when", ()))


def subject(rules: Mapping[str, Any], rule: str) -> Subject:
    """What the row called `rule` refuses: the request, the model, the card whatever is run, or its maker."""
    rows = [row for row in rules["rows"] if row["id"] == rule]
    if any(row.get("check") in REQUEST_CHECKS for row in rows):
        return "request"
    if any(_about_vendor(row) or _of_few(row) for row in rows):
        return "vendor"
    return "card" if any(_about_card(row) for row in rows) else "model"


def about_dtype(rules: Mapping[str, Any], rule: str) -> bool:
    """Whether the rows called `rule` refuse what is computed in, where another dtype may pass."""
    return any(row["id"] == rule and "dtype" in row.get("when", ()) for row in rules["rows"])


def _about_vendor(row: Mapping[str, Any]) -> bool:
    return "check" not in row and row.get("when", {}).keys() == {"vendor"}


def _of_few(row: Mapping[str, Any]) -> bool:
    return "check" not in row and row.get("when", {}).keys() == {"architecture"}


def drives(rules: Mapping[str, Any], machine: Machine) -> bool:
    """Whether any release runs on cards of this maker."""
    vendors = (row["when"]["vendor"] for row in rules["rows"] if _about_vendor(row))
    return not any(_holds(condition, machine.card.vendor) for condition in vendors)


def always(rules: Mapping[str, Any], rule: str) -> bool:
    """Whether the rows called `rule` refuse on any number of cards, in any layout."""
    rows = [row for row in rules["rows"] if row["id"] == rule]
    return bool(rows) and not any("check" in row or SPREAD_FACTS & row.get("when", {}).keys() for row in rows)


def judge(rules: Mapping[str, Any], model: ModelSpec, machine: Machine,
          deployment: Deployment) -> Refusal | None:  # fmt: skip
    """The first rule of a backend that refuses this deployment on this machine; None: rules allow it."""
    return Judge(rules, deployment.engine_version, model, machine)(deployment)


def offered(rules: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The releases that the planner may pin, newest first."""
    rows: Sequence[Mapping[str, Any]] = rules["versions"]
    return rows


def release(rules: Mapping[str, Any], version: str | None) -> Mapping[str, Any]:
    """The row of a release, or the nearest row that is not newer; the oldest for anything before it."""
    rows = offered(rules)
    for row in rows:
        if within(version, row["version"], None):
            return row
    return rows[-1]


def first_refusal(rows: Iterable[Open], known: Mapping[str, Any]) -> Refusal | None:
    """The first of `rows`, each with its open conditions, that applies to the facts `known`."""
    for row, conditions in rows:
        for fact, condition in conditions.items():
            if not _holds(condition, known.get(fact)):
                break
        else:
            told = CHECKS[row["check"]](known) if "check" in row else {}
            if told is not None:
                return Refusal(
                    row["id"], row["says"].format_map({**known, **told}), row["source"], row.get("check", "")
                )
    return None


def _rows_of(rules: Mapping[str, Any], version: str) -> Iterator[Open]:
    """The rows that speak of a release, each with all its conditions."""
    for row in rules["rows"]:
        if within(version, row.get("since"), row.get("before")):
            yield row, row.get("when", {})


def _holds(condition: Any, value: Any) -> bool:
    if isinstance(condition, dict):
        return all(_compares(how, value, bound) for how, bound in condition.items())
    if isinstance(condition, list):
        return value in condition
    return bool(value == condition)


def _compares(how: str, value: Any, bound: Any) -> bool:
    if how == "not":
        return value not in bound
    if how == "none_of":
        return not value or value.isdisjoint(bound)
    if value is None:
        return False
    return bool(value < bound) if how == "below" else bool(value >= bound)
