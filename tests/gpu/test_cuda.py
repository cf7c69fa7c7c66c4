"""On CUDA: what a CPU computes, and every stage from its settings to its files. `pytest tests/gpu` on such a machine.

Two machines agree where both compute in float32 with the same draws. What is trained draws its views on the device,
so that a whole run is only asked to go through, to learn, and to go on elsewhere.
"""

import copy
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from ssnas_colab.cli import main
from ssnas_colab.config import evaluation_config, search_config
from ssnas_colab.core.device import HeldImages, Replayed, choose_engine
from ssnas_colab.core.seeding import StepSeed
from ssnas_colab.data.augment import AUGMENTATIONS, augment, two_views
from ssnas_colab.experiment.run import Run
from ssnas_colab.models.baselines import SCALED, random_genotype, resnet18, within_macs
from ssnas_colab.models.genotype import GENOTYPES
from ssnas_colab.models.network import Network
from ssnas_colab.models.stages import random_stages
from ssnas_colab.nas.bilevel import Searcher
from ssnas_colab.nas.relaxations import one_hot
from ssnas_colab.nas.scores import SCORES, network_scores
from ssnas_colab.nas.supernet import Supernet
from ssnas_colab.stages.loader import load_data
from ssnas_colab.stages.search import search
from ssnas_colab.training import loop, recipes
from ssnas_colab.training.class_losses import LOSSES, class_loss
from ssnas_colab.training.recipes import RECIPE_FUNCTIONS, Trainer
from ssnas_colab.training.ssl_losses import OBJECTIVES, make_loss

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]
SEARCH = {"width": 4, "depth": 3, "batch_size": 32, "steps": 6, "embedding": 16, "nodes": 2, "device": "cuda"}
TRAIN = {"pretrain_steps": 6, "finetune_steps": 12, "batch_size": 32, "embedding": 16, "device": "cuda"}


@pytest.fixture(scope="module")
def digits():
    return load_data("digits", imbalance_factor=10)


@pytest.fixture
def exact():
    "No TF32: float32 is float32 (of products outside of convolutions it is so anyway)."
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def alike(ours, theirs, what, most=1e-4, scale=None):
    "Tensors of both devices agree to 1e-4 of the largest value (or of `scale`)."
    ours, theirs = ours.detach().cpu().double(), theirs.detach().cpu().double()
    off = (ours - theirs).abs().max().item() / (scale or ours.abs().max().item())
    assert off < most, f"{what}: {off:.2e} of the largest value"


def alike_gradients(ours, theirs):
    "The same in float64, to 1e-7 of the largest: those before a batch norm are 0 but for rounding."
    scale = max(one.grad.abs().max().item() for one in ours.parameters() if one.grad is not None)
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters()):
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is not None:
            alike(one.grad, other.grad, f"gradient of {name}", 1e-7, scale)


NETWORKS = {
    **{f"cells {name}": GENOTYPES[name] for name in ("FairDARTS_b", "DARTS_V2", "NASNet", "AmoebaNet")},
    **{f"stages {seed}": random_stages(seed) for seed in range(4)},
    **{name: name for name in ("resnet18", *SCALED)},
}


def made(name):
    torch.manual_seed(0)
    found, options = NETWORKS[name], {"max_macs": 5_000_000, "input_size": (32, 32)}
    if not isinstance(found, str):
        return Network(found, 10, in_channels=3, width=8)
    net = resnet18(10) if name == "resnet18" else within_macs(name, 10, **options)
    for part in net.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    return net


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_compute_what_they_compute_on_a_cpu(name, exact):
    net, x = made(name), torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    there = choose_engine("cuda", "float32").to(copy.deepcopy(net))
    ours, theirs = net.eval()(x), there.eval()(x.cuda().contiguous(memory_format=torch.channels_last))
    alike(ours, theirs, name)
    for each in (net, there):  # batch norm of few values and ReLU near 0 make much of float32's rounding
        each.train().double()
    ours, theirs = net(x.double()), there(x.double().cuda())
    alike(ours, theirs, f"{name}, in training", 1e-7)
    ours.square().mean().backward()
    theirs.square().mean().backward()
    alike_gradients(net, there)


@pytest.mark.parametrize("relaxation", ["fair", "darts", "sampled"])
def test_the_supernet_computes_what_it_computes_on_a_cpu(relaxation, exact):
    torch.manual_seed(0)
    net = Supernet(in_channels=1, width=4, depth=3, nodes=2, relaxation=relaxation)
    there, x = copy.deepcopy(net).cuda(), torch.randn(16, 1, 16, 16)
    weights = [one_hot(random_genotype(0, nodes=2), 2, d) if relaxation == "sampled" else None for d in ("cpu", "cuda")]
    alike(net(x, weights[0]), there(x.cuda(), weights[1]), "features")
    for each in (net, there):
        each.double()
    weights = [w and {kind: table.double() for kind, table in w.items()} for w in weights]
    net(x.double(), weights[0]).square().mean().backward()
    there(x.double().cuda(), weights[1]).square().mean().backward()
    alike_gradients(net, there)


@pytest.mark.parametrize("policy", AUGMENTATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_views_are_the_same_for_the_same_draws(policy, channels, monkeypatch, exact):
    images = torch.randint(256, (16, channels, 20, 20), dtype=torch.uint8)
    for name in ("rand", "randn"):
        honest = getattr(torch, name)

        def drawn_here(*size, generator, device, dtype=None, honest=honest):
            return honest(*size, generator=drawn_here.draws, dtype=dtype).to(device)

        monkeypatch.setattr(torch, name, drawn_here)
    found = []
    for device in ("cpu", "cuda"):
        torch.rand.draws = torch.randn.draws = torch.Generator().manual_seed(0)
        generator, here = torch.Generator(device), images.to(device)
        found.append([*two_views(here, policy, generator), augment(here, policy, generator).float()])
    for ours, theirs in zip(*found):
        alike(ours, theirs, policy)


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "supervised"])
def test_objectives_agree(name, exact):
    torch.manual_seed(0)
    loss = make_loss(name, 24, embedding=48)
    one, other = torch.randn(2, 32, 24)
    alike(loss(one, other, None), copy.deepcopy(loss).cuda()(one.cuda(), other.cuda(), None), name)


@pytest.mark.parametrize(("name", "task"), LOSSES)
def test_losses_agree(name, task):
    counts, logits = np.array([100, 30, 5, 1]), torch.randn(32, 4)
    targets = torch.randint(4, (32,)) if task == "single-label" else torch.randint(2, (32, 4))
    alike(*(class_loss(name, counts, task, 120)(logits.to(d), targets.to(d)) for d in ("cpu", "cuda")), name)


def test_images_lie_where_there_is_room():
    stack = np.random.default_rng(0).integers(0, 256, (10, 1, 4, 4), dtype=np.uint8)
    for device in ("cuda", "cuda:0", choose_engine("cuda").device):
        for free in (None, 10):
            held, positions = HeldImages(stack, device, free), torch.tensor([7, 2])
            held.expect(positions.to(held.index_device))
            found = held[positions.to(held.index_device)]
            assert found.is_cuda and (found.cpu().numpy() == stack[[7, 2]]).all()
            assert held.images.is_pinned() == (free == 10)


@pytest.mark.parametrize("precision", ["auto", "float32", "float16"])
@pytest.mark.parametrize("relaxation", ["fair", "darts", "partial", "path", "gumbel", "sampled", "enas"])
def test_a_search_step_of_each_relaxation(digits, relaxation, precision):
    config = search_config(SEARCH, relaxation=relaxation, precision=precision, warmup=0.0, policy="medical")
    searcher = Searcher(digits.images["train"], config)
    moved = [value for group in searcher.alpha_optimizer.param_groups for value in group["params"]]  # alphas or policy
    before = [value.detach().clone() for value in moved]
    for step in range(3):
        figures = searcher(StepSeed(0, "search", 0, step), 0.5)
        assert all(np.isfinite(float(value)) for value in figures.values()), figures
    assert any((a != b).any() for a, b in zip(before, moved))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_search_by_each_objective_goes_on_on_a_cpu(digits, tmp_path, monkeypatch, objective):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    honest, steps = loop.Fit.advance, []

    def interrupted(training, *a):
        steps.append(1)
        if len(steps) == 4:
            raise KeyboardInterrupt
        honest(training, *a)

    monkeypatch.setattr(loop.Fit, "advance", interrupted)
    run, options = Run.open(tmp_path / "run", {}), {"quiet": True, "objective": objective, "relaxation": "fair"}
    with pytest.raises(KeyboardInterrupt):
        search(digits, run, SEARCH, **options)
    found = search(digits, Run.open(tmp_path / "run"), SEARCH | {"device": "cpu"}, **options)
    assert all(np.isfinite(table).all() for table in found.arrays().values())


@pytest.mark.parametrize("recipe", RECIPE_FUNCTIONS)
@pytest.mark.parametrize("kind", ["cells DARTS_V2", "stages 1"])
def test_each_recipe_trains_and_is_read_on_a_cpu(digits, tmp_path, recipe, kind, exact):
    found = []
    for device in ("cuda", "cpu"):  # on the CPU all is done already
        config = evaluation_config(TRAIN, recipe=recipe, device=device, precision="float32")
        trainer = Trainer(kind, lambda: Network(NETWORKS[kind], 10, in_channels=1, width=8), digits,
                          Run.open(tmp_path / "run", {}), config, quiet=True)  # fmt: skip
        trainer.run()
        assert next(trainer.net.parameters()).device.type == device
        found.append(trainer.scores("test"))
    assert np.isfinite(found[0]).all() and (found[0].argmax(1) == found[1].argmax(1)).mean() > 0.99


@pytest.mark.parametrize("loss", sorted({name for name, task in LOSSES if task == "single-label"}))
def test_each_loss_trains(digits, tmp_path, loss):
    config = evaluation_config(TRAIN, loss=loss, precision="float16", recipe="scratch", sampler="class_balanced")
    trainer = Trainer("it", lambda: Network(GENOTYPES["DARTS_V2"], 10, in_channels=1, width=4, depth=3), digits,
                      Run.open(tmp_path / "run", {}), config, quiet=True)  # fmt: skip
    assert all(np.isfinite(row["loss"]) for row in trainer.run()["finetuning"])


@pytest.fixture
def no_waits():
    "Where the device is waited for, that is an error."
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


def steps_of(digits, folder, stage, watch, monkeypatch, **settings):
    "`watch(step, trainer)` of the step of a stage of a network with drop path, in float32 unless told otherwise."
    found, settings = [], {"precision": "float32", "loss": "ldam"} | settings
    monkeypatch.setattr(recipes, "fit", lambda run, place, state, step, **how: found.append(watch(step, trainer)))
    monkeypatch.setattr(recipes.Best, "restore", lambda best: None)

    def make():
        return Network(GENOTYPES["FairDARTS_a"], 10, in_channels=1, width=8, depth=3, drop_path=0.2)

    trainer = Trainer("it", make, digits, Run.open(folder, {}), evaluation_config(TRAIN, **settings), quiet=True)
    if stage == "pretrain":
        recipes.pretrain(trainer)
    else:
        recipes.learn(trainer, stage, settings["loss"], "natural", frozen=stage == "retrain")
    return found[0]


@pytest.mark.parametrize("precision", ["float32", "float16", "auto"])
@pytest.mark.parametrize("stage", ["pretrain", "finetune", "retrain"])
def test_replayed_steps_are_the_eager_ones(digits, tmp_path, monkeypatch, exact, stage, precision):
    "Losses and weights of 10 steps, half of them with the loss that comes late; twice recorded, or once."
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    recorded, honest = [], Replayed.record

    def record(replayed, *given):
        recorded.append(given)
        return honest(replayed, *given)

    def watch(step, trainer):
        losses = []
        for i in range(10):
            torch.manual_seed(i)
            losses.append(step(StepSeed(0, stage, 0, i), i / 10)["loss"])
        return torch.stack(losses), torch.cat([p.detach().flatten() for p in trainer.net.parameters()])

    monkeypatch.setattr(Replayed, "record", record)
    options = {"precision": precision}
    replayed = steps_of(digits, tmp_path / "replayed", stage, watch, monkeypatch, **options)
    assert len(recorded) == (1 if stage == "pretrain" else 2)
    monkeypatch.setattr(Replayed, "WARM", 100)
    eager = steps_of(digits, tmp_path / "eager", stage, watch, monkeypatch, **options)
    for ours, theirs, what in zip(replayed, eager, ("losses", "weights")):
        alike(ours, theirs, what, 1e-4 if precision == "float32" else 2e-2)
    assert len(set(replayed[0].tolist())) > 5


@pytest.mark.parametrize("precision", ["float32", "float16", "auto"])
@pytest.mark.parametrize("stage", ["pretrain", "finetune", "retrain"])
def test_no_step_of_training_waits(digits, tmp_path, monkeypatch, request, stage, precision):
    def watch(step, trainer):
        for i in range(8):  # puts down what never changes, warms up, and records
            step(StepSeed(0, stage, 0, i % 4), 0.9)
        request.getfixturevalue("no_waits")
        return [step(StepSeed(0, stage, 0, i), 0.9) for i in range(4)]

    assert len(steps_of(digits, tmp_path / "run", stage, watch, monkeypatch, precision=precision)) == 4


@pytest.mark.parametrize("precision", ["float32", "float16", "auto"])
@pytest.mark.parametrize("relaxation", ["fair", "sampled"])
def test_no_step_of_the_search_waits(digits, relaxation, precision, request):
    "The sampled one while it warms up: after that it waits for the losses of the networks that it compares."
    config = search_config(SEARCH, relaxation=relaxation, precision=precision, policy="medical")
    searcher = Searcher(digits.images["train"], config)
    done = 0.0 if relaxation == "sampled" else 0.9
    for step in range(3):
        searcher(StepSeed(0, "search", 0, step), done)
    request.getfixturevalue("no_waits")
    for step in range(3, 6):
        searcher(StepSeed(0, "search", 0, step), done)


def test_memory_that_runs_out_is_spared_once(digits):
    "The allocator is held to what a step needs, less a fifth."
    config = search_config(SEARCH, relaxation="fair", policy="medical", width=16, batch_size=256, warmup=0.0)
    searcher = Searcher(digits.images["train"], config)
    searcher(StepSeed(0, "search", 0, 0), 0.5)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    searcher(StepSeed(0, "search", 0, 0), 0.5)
    peak, whole = torch.cuda.max_memory_reserved(), torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.8 * peak / whole)
    try:
        with pytest.warns(UserWarning, match="memory ran out: .* 2 parts"):
            searcher(StepSeed(0, "search", 0, 0), 0.5)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert searcher.engine.parts == 2


def test_an_optimizer_goes_on_on_the_other_device():
    "Fused on the one, as lists on the other, whatever the state was written by."
    there, here = choose_engine("cuda", "float32"), choose_engine("cpu")
    weights = {e.device.type: torch.nn.Parameter(torch.ones(4, device=e.device)) for e in (there, here)}
    made = {e.device.type: e.optimizer(torch.optim.AdamW, [weights[e.device.type]], 0.1) for e in (there, here)}
    for engine in (here, there, here):
        kind = engine.device.type
        engine.update((weights[kind] * torch.arange(4.0, device=kind)).sum(), made[kind], clip=1.0)
        other = "cuda" if kind == "cpu" else "cpu"
        weights[other].data.copy_(weights[kind].data)
        state = torch.utils._pytree.tree_map_only(torch.Tensor, lambda t: t.cpu(), made[kind].state_dict())
        made[other].load_state_dict(state)
        assert made["cuda"].param_groups[0]["fused"] and made["cpu"].param_groups[0]["foreach"]
        assert not made["cpu"].param_groups[0]["fused"]
    assert torch.isfinite(weights["cpu"]).all() and int(made["cuda"].state[weights["cuda"]]["step"]) == 3


def test_scores_of_networks(digits):
    torch.manual_seed(0)
    net, images = Network(random_stages(0), 10, in_channels=1, width=8), digits.images["train"][:128]
    options = {"scores": tuple(SCORES), "steps": (4,)}
    ours, theirs = network_scores(net, images, **options), network_scores(net.cuda(), images, **options)
    for name in ("macs", "parameters", "depth"):
        assert ours[name] == theirs[name]
    assert all(np.isfinite(value) for of in theirs.values() for value in of.values()), theirs


@pytest.mark.parametrize("strategy", ["random", "halving", "asha", "evolution", "controller", "grow_trim"])
def test_each_strategy_searches(digits, tmp_path, strategy):
    run = Run.open(tmp_path / "run", {})
    config = {"space": "stages", "strategy": strategy, "candidates": 4, "score_steps": 2, "device": "cuda"}
    search(digits, run, config, budgets={"macs": 300_000, "parameters": 60_000, "latency": 1000.0}, quiet=True)
    assert run.load_json("search.json")["pick"]


def test_two_processes_share_a_device(tmp_path):
    few = ["--set=search.steps=20", "--set=evaluation.pretrain_steps=10", "--set=evaluation.finetune_steps=20"]
    command = [sys.executable, "-m", "ssnas_colab", "run", "--space", "cells", "--device", "cuda", *few, "--out"]
    both = [subprocess.Popen([*command, tmp_path / name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for name in "ab"]  # fmt: skip
    said = [one.communicate()[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], "\n\n".join(text[-2000:] for text in said)
    reports = [json.loads((tmp_path / name / "report.json").read_text()) for name in "ab"]
    assert len(reports[0]["models"]) == len(reports[1]["models"]) > 3


def test_a_device_that_is_not_there_is_refused(tmp_path, capsys):
    assert main(["run", "--device", "cuda:99", "--out", str(tmp_path / "run")]) == 2
    assert "cuda:99" in capsys.readouterr().err
