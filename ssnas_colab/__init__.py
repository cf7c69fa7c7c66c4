__version__ = "0.6.0"
__doc__ = "Self-supervised neural architecture search for imbalanced datasets, on one free GPU."

# The public names stand once, in `__init__.pyi`, with the modules where they live. They are imported when first asked
# for, so that `import ssnas_colab` is quick.
def _homes():
    import re

    with open(f"{__file__.rpartition('.')[0]}.pyi", encoding="utf-8") as file:
        return {name: home for home, name in re.findall(r"^from (\S+) import (\w+)", file.read(), re.M)}


_HOMES = _homes()
__all__ = sorted(_HOMES)


def __getattr__(name):
    from importlib import import_module

    if name in _HOMES:
        return getattr(import_module(_HOMES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
