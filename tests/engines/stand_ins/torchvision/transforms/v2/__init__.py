"""The second version of the transforms, as empty as the first."""

from torchvision.transforms.v2 import functional


def __getattr__(name: str) -> type:
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), {})


__all__ = ["functional"]
