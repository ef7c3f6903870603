"""What a run costs is known, and a budget is never overdrawn."""

from __future__ import annotations

import pytest

from memserve.errors import BudgetSpent, ConnectionFailed, InvalidInput
from memserve.protocol import Completion, Usage
from memserve.run import run
from memserve.run.job import Job
from memserve.run.limits import budget
from memserve.run.options import Options


def paid(count, prompt=1000, answer=100, cached=None):
    usage = Usage(prompt, answer, cached)
    return {"*": [Completion(text="x", finish_reason="stop", usage=usage) for _ in range(count)]}


BUDGETS = [
    ("20usd", 20, "usd"),
    ("$2.5", 2.5, "usd"),
    (3, 3, "usd"),
    ("5mtok", 5e6, "tokens"),
    ("7 ktok", 7e3, "tokens"),
]


@pytest.mark.parametrize(("text", "amount", "unit"), BUDGETS)
def test_budgets_are_read(text, amount, unit):
    assert budget.budget(text) == budget.Budget(amount, unit)


@pytest.mark.parametrize("text", ["", "-3", "0", "20eur", "many"])
def test_what_is_no_budget(text):
    with pytest.raises(InvalidInput):
        budget.budget(text)


def test_cost_counts_cached_tokens_at_their_own_price(fake, out, rows):
    generator = fake(paid(2, cached=400))
    generator.identity = {"backend": "openai", "model": "gpt-4o"}
    summary = run(["a", "b"], out, generator=generator)
    each = (600 * 2.5 + 400 * 1.25 + 100 * 10) / 1e6
    assert summary.usd == pytest.approx(2 * each)
    assert rows(out)[0]["usd"] == pytest.approx(each)
    assert summary.cached_tokens == 800


@pytest.mark.parametrize("concurrency", [1, 32])
def test_a_budget_stops_in_time(fake, out, concurrency):
    generator = fake(paid(10_000), seconds=0.001)
    asked = [{"prompt": "w" * 3000 + str(n), "max_tokens": 100} for n in range(1000)]
    with pytest.raises(BudgetSpent, match=r"0\.1 usd"):
        run(asked, out, generator=generator, budget="0.1usd", price=(1.0, 10.0), concurrency=concurrency)
    spent = len(generator.asked) * (1000 * 1 + 100 * 10) / 1e6
    assert 0.085 < spent <= 0.1


def test_a_budget_holds_for_all_runs_on_an_output(fake, out):
    asked = [{"prompt": "w" * 3000 + str(n), "max_tokens": 100} for n in range(1000)]
    for _ in range(2):
        with pytest.raises(BudgetSpent):
            generator = fake(paid(10_000))
            run(asked, out, generator=generator, budget="50ktok", concurrency=4)
    assert len(generator.asked) <= 1


@pytest.mark.parametrize("order", ["given", "prefix"])
def test_a_run_knows_what_earlier_ones_were_told(fake, tmp_path, out, order):
    """Also where the first request's like has not been read again: short prompts under a long template."""
    (requests := tmp_path / "r.jsonl").write_text(
        "\n\n".join(f'{{"id": {n}, "prompt": "What is {n} plus 1?", "max_tokens": 24}}' for n in range(40))
    )
    asked = []
    for _ in range(3):
        generator = fake(paid(40, prompt=38, answer=24))
        with pytest.raises(BudgetSpent):
            run(requests, out, generator=generator, budget="200tok", order=order)
        asked.append(len(generator.asked))
    assert asked == [3, 0, 0]


def test_what_was_not_read_was_not_asked(fake, tmp_path, out):
    (requests := tmp_path / "r.jsonl").write_text("\n\n".join(f'"p{n}"' for n in range(40)))
    options = Options.of(budget="200tok", settings={"max_tokens": 24})
    summary = Job(requests, out, fake(paid(40, prompt=38, answer=24)), options).execute()
    assert (summary.total, summary.pending) == (40, 40 - summary.done)
    assert summary.done < 5


@pytest.mark.parametrize("first", [ConnectionFailed("cut off"), Completion(text="B", finish_reason="stop")])
def test_what_may_have_been_billed_counts_in_later_runs_too(fake, out, first):
    """An attempt without an answer, an answer that nobody counted; also where a run asks nothing at all."""
    generator, asked = fake({"b": [first]}), 0
    for _ in range(3):
        try:
            run(["a", "b", "c"], out, generator=generator, budget="40tok", order="given", progress=False,
                settings={"max_tokens": 5})  # fmt: skip
        except BudgetSpent:
            asked = asked or len(generator.asked)
        assert len(generator.asked) == 2 == asked


def test_answers_that_nobody_counted_are_taken_at_their_worst(fake, out):
    script = {"*": [Completion(text="x", finish_reason="stop") for _ in range(1000)]}
    generator = fake(script)
    with pytest.raises(BudgetSpent):
        run(
            [f"p{n}" for n in range(1000)],
            out,
            generator=generator,
            budget="5ktok",
            settings={"max_tokens": 90},
        )
    assert 20 < len(generator.asked) <= 55


def test_a_dollar_budget_needs_a_price(fake, out):
    generator = fake()
    with pytest.raises(InvalidInput, match="needs a price"):
        run(["a"], out, generator=generator, budget="1usd")
    assert not generator.asked
