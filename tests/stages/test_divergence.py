"A training that leaves the numbers says so in one sentence, in every stage, and leaves no checkpoint of it."

import numpy as np
import pytest
import torch

from ssnas_colab.cli import main
from ssnas_colab.config import evaluation_config
from ssnas_colab.core.basics import Diverged, UserError
from ssnas_colab.experiment.run import Run
from ssnas_colab.models.baselines import narrow_resnet
from ssnas_colab.stages.evaluation import evaluate_network, tuned_rate
from ssnas_colab.stages.loader import load_data
from ssnas_colab.stages.search import search
from ssnas_colab.training import loop
from ssnas_colab.training.loop import fit

pytestmark = pytest.mark.usefixtures("unpainted")
SEARCH = {"width": 2, "depth": 3, "nodes": 1, "batch_size": 16, "steps": 8, "embedding": 8, "warmup": 0.0}
EVALUATION = {
    "pretrain_steps": 4, "finetune_steps": 4, "batch_size": 16, "embedding": 8, "max_parameters": 4_000,
    "random_genotypes": 0, "resnet18": False, "mobilenet": False, "published": (), "equal_macs": (),
}  # fmt: skip


@pytest.fixture(scope="module")
def images():
    labels = np.arange(64) % 2
    pixels = np.random.default_rng(0).integers(0, 128, (64, 8, 8)) + 100 * labels[:, None, None]
    return pixels.astype(np.uint8), labels


@pytest.mark.parametrize(
    "settings, told",
    [
        ({"pretrain_rate": 1e9}, "pretrain/small diverged at step . of 4: .* evaluation.pretrain_rate .1e.09."),
        ({"finetune_rate": 1e9}, "small diverged in finetune, after step . of 4: .* evaluation.finetune_rate .1e.09."),
        ({"finetune_decay": 1e9}, "evaluation.finetune_decay .1e.09."),
        ({"finetune_rate": 1e9, "recipe": "crt"}, "evaluation.finetune_rate"),
        ({"finetune_rate": 1e9, "tune_rates": 2}, "evaluation.finetune_rate"),
        ({"pretrain_rate": 1e9, "recipe": "knn"}, "evaluation.pretrain_rate"),
        ({"pretrain_rate": 1e9, "recipe": "linear_probe"}, "evaluation.pretrain_rate"),
    ],
)
def test_every_recipe_says_what_diverged(images, tmp_path, settings, told):
    data, config = load_data(images), evaluation_config(EVALUATION | settings, device="cpu")
    run, made = Run.open(tmp_path / "run", {}), {"small": lambda: narrow_resnet(2, 1, max_parameters=4_000)}
    for _ in range(2):  # and says it again, from what was good before
        with pytest.raises(Diverged, match=told) as caught:
            rate = tuned_rate("searched", made, data, run, config, quiet=True)
            evaluate_network("small", made["small"], data, run, config, True, rate)
        assert "\n" not in str(caught.value) and not isinstance(caught.value, UserError)
    for stage in run.checkpoints.stages():
        assert loop._all_finite(run.checkpoints.load(stage)["state"]["parts"])
    assert not run.has("models/small.json")


@pytest.mark.parametrize("relaxation", ["sampled", "fair"])
@pytest.mark.filterwarnings("ignore:search. divergence")
def test_a_search_says_what_diverged(images, tmp_path, relaxation):
    options = SEARCH | {"relaxation": relaxation, "learning_rate": 1e9, "device": "cpu"}
    with pytest.raises(Diverged, match="divergence: .* is not finite in epoch . after 2 .*search.learning_rate"):
        search(images[0], Run.open(tmp_path / "run", {}), quiet=True, **options)
    found = Run.open(tmp_path / "run").checkpoints.load("search")
    assert loop._all_finite(found["state"]["parts"])


def test_the_command_has_an_exit_code_for_it(images, tmp_path, capsys):
    np.savez(tmp_path / "x.npz", **{f"{s}_images": images[0] for s in ("train", "val", "test")},
             **{f"{s}_labels": images[1][:, None] for s in ("train", "val", "test")})  # fmt: skip
    given = [f"--set=search.{name}={value}" for name, value in SEARCH.items()]
    given += [f"--set=evaluation.{n}={v}" for n, v in EVALUATION.items() if not isinstance(v, (bool, tuple))]
    given += ["--set=evaluation.finetune_rate=1e9", "--set=evaluation.resnet18=false", "--quiet", "--device", "cpu"]
    assert main(["run", "--data", str(tmp_path / "x.npz"), "--out", str(tmp_path / "run"), *given]) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("ssnas: searched diverged in finetune") and "Traceback" not in "".join(said)


def walk(run, bad_step, every=0.0, value="weight", epochs=3):
    "Three epochs of four steps, of which one spoils the weight or the loss; how many steps were begun."
    place, count = torch.nn.Linear(1, 1), []

    def step(moment, done):
        count.append(1)
        with torch.no_grad():
            place.weight += 1.0
            if len(count) + skipped == bad_step and value == "weight":
                place.weight *= torch.nan
        return {"loss": torch.tensor(torch.nan if value == "loss" and len(count) + skipped == bad_step else 1.0)}

    header = run.checkpoints.header("s")
    skipped = 4 * header["epoch"] + header["step"] if header else 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "CHECKPOINT_SECONDS", every)
        fit(run, "s", {"net": place}, step, epochs=epochs, steps_per_epoch=4, seed=0, quiet=True, lower="the pace")
    return len(count)


@pytest.mark.parametrize("value", ["weight", "loss"])
@pytest.mark.parametrize("every, reached", [(0.0, 6), (3600.0, 0)])
def test_what_is_not_finite_is_never_kept(tmp_path, value, every, reached):
    run = Run.open(tmp_path / "run", {})
    for _ in range(2):
        step = 7 if value == "loss" or not every else 8  # the weights are looked at less often
        with pytest.raises(Diverged, match=f"s diverged at step {step} of 12: .* is not finite: lower the pace"):
            walk(run, 7, every, value)
        found = run.checkpoints.load("s")
        assert (4 * found["epoch"] + found["step"] if found else 0) == reached
    assert not run.finished("s") and walk(Run.open(tmp_path / "well", {}), 99) == 12
