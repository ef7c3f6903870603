"""The store of prefixes: whole blocks, longest run, a byte limit."""

from __future__ import annotations

from dataclasses import dataclass

from memserve_hf.decoding.prefixes import BLOCK, Prefixes, names


@dataclass
class Block:
    """As much of a tensor as the store looks at."""

    size: int

    def numel(self) -> int:
        return self.size

    def element_size(self) -> int:
        return 1


def states(size: int = 100):
    return [(Block(size // 2), Block(size - size // 2))]


def test_names_stand_for_everything_before():
    one, other = names([1] * 200), names([1] * 64 + [2] * 136)
    assert one[:2] == other[:2]
    assert not set(one[2:]) & set(other[2:])
    assert names([2, *[1] * 199])[1] != one[1]


def test_the_last_token_is_never_in_a_block():
    assert len(names([1] * BLOCK)) == 0
    assert len(names([1] * (BLOCK + 1))) == 1


def test_the_longest_run_is_found_over_several_segments():
    store, asked = Prefixes(1000), names(list(range(5 * BLOCK + 1)))
    store.keep(asked[:2], states())
    store.keep(asked[2:4], states())
    pieces = store.find(asked)
    assert [(piece.skip, piece.count) for piece in pieces] == [(0, 2 * BLOCK), (0, 2 * BLOCK)]
    assert store.find(names([9] * 100)) == []


def test_what_was_not_used_for_longest_goes_first():
    store = Prefixes(250)
    first, second, third = (names([n] * (BLOCK + 1)) for n in (1, 2, 3))
    store.keep(first, states())
    store.keep(second, states())
    store.find(first)
    store.keep(third, states())
    assert store.find(first)
    assert not store.find(second)
    assert store.held == 200


def test_a_segment_above_the_limit_is_not_kept():
    store = Prefixes(50)
    store.keep(names([1] * (BLOCK + 1)), states())
    assert store.held == 0
