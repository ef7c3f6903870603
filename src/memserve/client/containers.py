"""Containers of numpy, pandas, Arrow and Polars as Python's own values, without importing any of them."""

from memserve.errors import InvalidInput

_CONVERTERS = ("to_pylist", "to_list", "tolist", "as_py")


def plain(value: object) -> object:
    """A list from a column or an array, a plain value from a scalar; all else as it is."""
    if isinstance(value, (str, list, tuple, dict)):
        return value
    if hasattr(value, "columns"):
        raise InvalidInput(f"a {type(value).__name__} is a table", hint="pass one column of it")
    for name in _CONVERTERS:
        convert = getattr(value, name, None)
        if callable(convert):
            found: object = convert()
            return found
    return value
