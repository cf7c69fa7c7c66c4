"Settings: what is refused, in what words, and what runs of earlier versions go on with."

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from refusal import refused

from ssnas_colab import config
from ssnas_colab.config import (
    DataConfig,
    EvaluationConfig,
    RunConfig,
    SearchConfig,
    complete,
    evaluation_config,
    fields_of,
    pipeline_config,
    range_of,
    read_value,
    search_config,
)

KINDS = {"data": DataConfig, "search": SearchConfig, "evaluation": EvaluationConfig, "run": RunConfig}
EVERY = [(stage, name) for stage, kind in KINDS.items() for name in fields_of(kind)]


@pytest.mark.parametrize("stage, name", EVERY, ids=lambda one: one)
def test_every_setting_has_a_line_of_help_a_range_and_a_default_that_fits(stage, name):
    field = fields_of(KINDS[stage])[name]
    assert 3 < len(field.metadata["text"]) < 200 and range_of(field) and name in KINDS[stage].__doc__
    assert config.checked("It", field, field.default) == field.default


WRONG = [object(), [[]], {}, math.nan, -math.inf, b"x", "\x00", 10**400, True, -1.5]


@pytest.mark.parametrize(
    "stage, name", [one for one in EVERY if one[0] in ("search", "evaluation")], ids=lambda one: one
)
def test_what_does_not_fit_is_one_sentence(stage, name):
    field, make = fields_of(KINDS[stage])[name], {"search": search_config, "evaluation": evaluation_config}[stage]
    kind, _ = config.kind_of(field)
    for value in WRONG:
        if kind is bool and value is True or kind is str and isinstance(value, str) and not field.metadata["choices"]:
            continue
        if kind is tuple and value == "\x00":
            continue
        if (
            kind in (int, float)
            and value == -1.5
            and (kind, field.metadata["low"], field.metadata["above"]) == (float, None, None)
        ):
            continue
        refused(name, act=lambda value=value: make({name: value}))


def test_what_a_shell_says_is_read():
    fields = fields_of(EvaluationConfig)
    told = {"finetune_rate": "1e-3", "post_hoc": "true", "published": "SNAS,DARTS_V2", "depth": "none", "recipe": "knn"}
    made = evaluation_config(
        {name: read_value(fields[name], text) for name, text in told.items()} | {"post_hoc": False}
    )
    assert (made.finetune_rate, made.published, made.depth, made.recipe) == (1e-3, ("SNAS", "DARTS_V2"), None, "knn")
    assert read_value(fields["post_hoc"], "true") is True and read_value(fields["loss"], "1") == "1"


def test_configs_of_version_0_1_are_made_again():
    "A preset that changes keeps its old values in CHANGED_PRESETS, a new setting says what older runs had."
    stored = json.loads((Path(__file__).parent / "data/v0.1_configs.json").read_text())
    fair = stored.pop("quick, fair")
    for preset, old in stored.items():
        made = json.loads(json.dumps(pipeline_config("digits", preset, began="0.1.0")))
        assert made == complete(old, "0.1.0")
        for stage in ("data", "search", "evaluation"):
            assert old[stage].items() <= made[stage].items(), (preset, stage)
    options = {"imbalance_factor": 20, "seed": 3, "columns": {"label": ["a"]}, "max_parameters": 50_000}
    options |= {"search": {"relaxation": "fair"}, "evaluation": {"loss": "focal"}, "began": "0.1.0"}
    assert json.loads(json.dumps(pipeline_config("scans.zip", "quick", **options))) == complete(fair, "0.1.0")


def test_names_are_those_that_the_modules_know():
    from ssnas_colab.data.augment import AUGMENTATIONS
    from ssnas_colab.data.imbalance import PROFILES
    from ssnas_colab.models.genotype import GENOTYPES
    from ssnas_colab.nas.relaxations import RELAXATIONS
    from ssnas_colab.training.class_losses import LOSSES
    from ssnas_colab.training.ssl_losses import OBJECTIVES

    assert set(config.AUGMENTATION_NAMES) == set(AUGMENTATIONS) and set(config.OBJECTIVE_NAMES) == set(OBJECTIVES)
    assert set(config.RELAXATION_NAMES) == set(RELAXATIONS)
    assert {(name, task) for name, tasks in config.LOSS_TASKS.items() for task in tasks} == set(LOSSES)
    assert fields_of(DataConfig)["profile"].metadata["choices"] == tuple(PROFILES)
    assert fields_of(EvaluationConfig)["published"].metadata["choices"] == tuple(GENOTYPES)


def test_settings_import_nothing_heavy():
    code = (
        "import sys, ssnas_colab.config; print(sorted({'torch', 'numpy', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_configs_are_frozen_and_equal_by_value():
    assert search_config("cpu") == search_config(dataclasses.asdict(search_config("cpu")))
    with pytest.raises(dataclasses.FrozenInstanceError):
        search_config().width = 3


def test_no_score_makes_do_with_few_images_whatever_else_is_named():
    assert search_config("quick", strategy="random", score=None).score is None
    assert search_config("quick", strategy="random").score == "retrieval"


def test_numbers_that_are_none_are_text():
    field = fields_of(EvaluationConfig)["max_macs"]
    assert read_value(field, "\u00b2M") == "\u00b2M" and read_value(field, "[" * 100_000) == "[" * 100_000
    assert read_value(field, "2M") == 2e6 and read_value(field, "\u0663k") == "\u0663k"


def test_a_number_with_a_suffix_is_exact():
    field = fields_of(EvaluationConfig)["max_macs"]
    for many in range(1, 2000):
        assert read_value(field, f"{many // 10}.{many % 10}M") == many * 100_000
        assert read_value(field, f"{many / 1000:.3f}k") == many
    assert read_value(field, ".5M") == 500_000 and read_value(field, ".M") == ".M" and read_value(field, "1.k") == 1000
