__version__ = "0.4.0"
__doc__ = "Self-supervised neural architecture search for imbalanced datasets, on one free GPU."

# The public names and where they live. They are imported when first asked for, so that `import ssnas_colab` is quick.
_HOMES = {
    "stages.loader": ("ImageData", "load_data"),
    "data.imbalance": ("long_tailed_counts",),
    "models.genotype": ("Edge", "GENOTYPES", "Genotype", "PRIMITIVES", "load_genotype"),
    "plots.genotype": ("plot_genotype",),
    "models.network": ("Network", "count_macs", "count_parameters"),
    "nas.supernet": ("Supernet",),
    "training.ssl_losses": ("barlow_twins_loss", "nt_xent_loss"),
    "nas.relaxations": ("zero_one_loss",),
    "nas.derive": ("derive",),
    "nas.scores": ("network_score",),
    "experiment.run": ("Run",),
    "core.basics": ("UserError",),
    "inference.predict": ("load_model",),
    "stages.search": ("search",),
    "stages.derivation": ("derive_stage",),
    "stages.evaluation": ("evaluate",),
    "widgets.explorer": ("explore",),
    "stages.pipeline": ("run_pipeline",),
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
