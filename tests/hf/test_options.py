"""Options as keywords and as words of a command line."""

from __future__ import annotations

import pytest

from memserve.errors import InvalidInput, Unsupported
from memserve_hf.options import read


def test_words_are_read_as_the_options_type():
    options = read(
        {
            "max_rows": "8",
            "trust_remote_code": "true",
            "kv_gib": "1.5",
            "dtype": "half",
            "max_model_len": "99",
        }
    )
    assert (options.max_rows, options.trust_remote_code, options.kv_gib) == (8, True, 1.5)
    assert (options.dtype, options.context) == ("float16", 99)


def test_auto_leaves_the_choice():
    assert read({"dtype": "auto", "device": "auto"}).dtype is None


@pytest.mark.parametrize("given", [
    {"dtype": "float8"}, {"quantization": "nf5"}, {"max_rows": "many"}, {"max_rows": -1},
    {"pooling": "median"}, {"trust_remote_code": "perhaps"}, {"adapter": "/no/such/folder"},
])  # fmt: skip
def test_impossible_values_are_refused(given):
    with pytest.raises(InvalidInput):
        read(given)


def test_an_unknown_option_is_refused_with_the_nearest():
    with pytest.raises(Unsupported, match="did you mean dtype"):
        read({"dtyp": "float32"})


def test_safe_by_default():
    options = read({})
    assert not options.trust_remote_code
    assert not options.allow_pickle
