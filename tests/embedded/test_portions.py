"""However many samples are asked for, so many rows as have room are decoded side by side."""

from __future__ import annotations

from extras import need

from memserve.protocol import Request

generating = need("memserve_embedded.session", "embedded")


def asked(prompt: int, samples: int, most: int = 8):
    request = Request(prompt="x", n=samples)
    one = generating.Asked(request, [1] * prompt, most)
    one.rows = [generating.Row(request, None, None, most) for _ in range(samples)]
    return one


def test_many_samples_take_turns():
    sizes = [len(rows) for rows in generating.portions([asked(8, 5000)])]
    assert sum(sizes) == 5000
    assert max(sizes) == generating.ROWS


def test_long_prompts_leave_room_for_fewer():
    rows = next(generating.portions([asked(generating.POSITIONS // 3, 16)]))
    assert len(rows) == 2


def test_a_group_of_several_stays_together():
    group = [asked(8, 2), asked(8, 3)]
    [rows] = generating.portions(group)
    assert [one for one, _ in rows] == [group[0]] * 2 + [group[1]] * 3
