"""An image library that has no images: whatever is asked for is an empty class."""

__version__ = "0.0"


def __getattr__(name: str) -> type:
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), {})
