__version__ = "0.1.0"
__doc__ = "Self-supervised neural architecture search for imbalanced datasets, on one free GPU."

import sys as _sys

# The public names and where they live. They are imported when first asked for, so that `import ssnas_colab` is quick.
_HOMES = {
    "loader": ("ImageData", "load_data", "long_tailed_counts"),
    "core.genotype": ("Edge", "GENOTYPES", "Genotype", "PRIMITIVES", "plot_genotype"),
    "core.network": ("Network", "count_macs", "count_parameters"),
    "core.supernet": ("Supernet",),
    "core.objectives": ("barlow_twins_loss", "nt_xent_loss", "zero_one_loss"),
    "core.derive": ("derive",),
    "core.runs": ("Run", "UserError"),
    "core.using": ("load_model",),
    "search": ("search",),
    "derivation": ("derive_stage",),
    "evaluation": ("evaluate",),
    "explorer": ("explore",),
    "pipeline": ("run_pipeline",),
}
__all__ = sorted(name for names in _HOMES.values() for name in names)


def __getattr__(name):
    from importlib import import_module

    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})


class _Package(type(_sys)):
    """This package as a module where `search` is always the function.

    Importing a submodule binds it in its package, here over the function of the same name. The function is bound
    instead; `from ssnas_colab.search import SEARCH_PRESETS` finds the module all the same.
    """

    def __setattr__(self, name, value):
        if name == "search" and isinstance(value, type(_sys)):
            value = value.search
        super().__setattr__(name, value)


_sys.modules[__name__].__class__ = _Package
