"""Pictures on hf: the tokens of transformers' own processor and generate, on tiny models of many families.

python benchmarks/pictures.py [FAMILY ...]     (in the environment of hf: torch, transformers, pillow)
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

import tiny_pictures
from tiny_pictures import image, picture, text, user

import memserve

COUNT, MOST, SEED = 40, 12, 7


def talks(family: str) -> list[list[dict]]:
    """Forty prompts: pictures of many sizes, in chats one to three of them among words."""
    draw = Random(SEED)
    made = []
    for number in range(COUNT):
        several = 1 if family in tiny_pictures.CAPTION else draw.choice([1, 1, 2, 3])
        shown = [
            image(picture(number * 8 + n, draw.randrange(20, 160), draw.randrange(20, 160)))
            for n in range(several)
        ]
        words = [text(draw.choice(["the river", "seven green lamps", "an old stone bridge"]))]
        made.append(user(*shown, *(words if family in tiny_pictures.CHAT else ())))
    return made


def main() -> None:
    """One line a family."""
    makers = {**tiny_pictures.CHAT, **tiny_pictures.CAPTION}
    for family in sys.argv[1:] or makers:
        with tempfile.TemporaryDirectory() as scratch:
            folder = makers[family](Path(scratch))
            reference, asked = tiny_pictures.Reference(folder), talks(family)
            wanted = [reference.answer(talk, MOST) for talk in asked]
            with memserve.generator(str(folder), backend="hf", dtype="float32") as generator:
                together = generator.generate(asked, max_tokens=MOST)
                alone = [generator.generate(talk, max_tokens=MOST) for talk in asked]
        same = sum(
            [list(one.token_ids), list(other.token_ids)] == [ids, ids] and one.usage.prompt_tokens == count
            for one, other, (ids, count) in zip(together, alone, wanted, strict=True)
        )
        different = len({tuple(ids) for ids, _ in wanted})
        print(f"{family:16} same tokens in company and alone: {same} of {COUNT}, {different} of them differ")


if __name__ == "__main__":
    main()
