"""What only a GPU does, by stand-ins on a CPU: recorded steps, too little memory, half precision."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ssnas_colab.config import evaluation_config, search_config
from ssnas_colab.core.device import Replayed
from ssnas_colab.core.seeding import StepSeed
from ssnas_colab.experiment.run import Run
from ssnas_colab.models.genotype import GENOTYPES
from ssnas_colab.models.network import Network
from ssnas_colab.nas.bilevel import Searcher
from ssnas_colab.stages.loader import load_data
from ssnas_colab.training import loop, recipes

TRAIN = {"pretrain_steps": 6, "finetune_steps": 12, "batch_size": 32, "embedding": 16, "device": "cpu"}
SEARCH = {"width": 2, "depth": 3, "nodes": 1, "batch_size": 32, "embedding": 16, "device": "cpu", "policy": "medical"}


@pytest.fixture(scope="module")
def digits():
    whole = load_digits()
    return load_data(((whole.images[:480] * 255 / 16).astype(np.uint8), whole.target[:480]))


class Tape(TorchDispatchMode):
    """Keeps every operation, and does them again on the very tensors: like a CUDA graph, it knows nothing of Python.

    Recording alone changes nothing: `undo` puts back what was written to. What reads a number cannot be recorded.
    """

    def __init__(self):
        super().__init__()
        self.kept, self.before, self.own, self.random = [], {}, set(), torch.get_rng_state()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name, kwargs = function.__name__, kwargs or {}
        if name.startswith(("_local_scalar_dense", "nonzero")):
            raise RuntimeError("operation not permitted when stream is capturing")
        places = [spec.alias_info and spec.alias_info.is_write for spec in function._schema.arguments]
        written = [given for given, write in zip(args, places) if write]
        written += args[3:5] if name == "native_batch_norm.default" else []
        for tensor in tree_leaves(written):
            if tensor is not None and tensor.untyped_storage().data_ptr() not in self.own:
                self.before.setdefault(tensor.data_ptr(), (tensor, tensor.clone()))
        result = function(*args, **kwargs)
        if not function.is_view and not function._schema.is_mutable:
            self.own |= {t.untyped_storage().data_ptr() for t in tree_leaves(result) if isinstance(t, torch.Tensor)}
        if not (function.is_view or name.startswith(("empty", "new_empty", "lift_fresh"))):
            self.kept.append((function, args, kwargs, result))
        return result

    def undo(self):
        torch.set_rng_state(self.random)
        with torch.no_grad():
            for tensor, value in self.before.values():
                tensor.copy_(value)

    @torch.no_grad()
    def again(self):
        for function, args, kwargs, result in self.kept:
            new = function(*args, **kwargs)
            if not function._schema.is_mutable:
                for mine, other in zip(tree_leaves(result), tree_leaves(new)):
                    if isinstance(mine, torch.Tensor) and mine.data_ptr() != other.data_ptr():
                        mine.detach().copy_(other)


class OnTape(Replayed):
    "As on CUDA, by a `Tape`."

    recorded, fails = 0, False

    def __init__(self, function, device):
        super().__init__(function, device)
        self.on = True

    def aside(self, *given):
        return self.function(*given)

    def record(self, *given):
        if OnTape.fails:
            raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors might ...")
        OnTape.recorded += 1
        try:
            with Tape() as tape:
                result = self.function(*given)
        finally:
            tape.undo()
        return lambda: (tape.again(), result)[1]


def trained(digits, folder, **settings):
    "Weights and histories of a network with drop path that was pretrained and fine-tuned."
    config = evaluation_config(TRAIN, **settings)
    make = lambda: Network(GENOTYPES["FairDARTS_a"], 10, in_channels=1, width=4, depth=2, drop_path=0.2)  # noqa: E731
    trainer = recipes.Trainer("it", make, digits, Run.open(folder, {}), config, quiet=True)
    return trainer.run(), trainer.net.state_dict(), trainer


@pytest.fixture(scope="module")
def straight(digits, tmp_path_factory):
    return trained(digits, tmp_path_factory.mktemp("straight") / "run", loss="ldam")


@pytest.mark.parametrize("fails", [False, True])
def test_recorded_steps_are_the_steps(digits, straight, tmp_path, monkeypatch, fails, recwarn):
    "To the bit, with drop path, in both stages; the loss that changes half way is recorded anew."
    monkeypatch.setattr(recipes, "Replayed", OnTape)
    monkeypatch.setattr(OnTape, "recorded", 0)
    monkeypatch.setattr(OnTape, "fails", fails)
    warnings.simplefilter("always")  # of both stages, though the sentence and the place are the same
    history, state, _ = trained(digits, tmp_path / "run", loss="ldam")
    assert history == straight[0]
    assert all(torch.equal(state[name], value) for name, value in straight[1].items())
    told = [str(one.message) for one in recwarn if "CUDA graph" in str(one.message)]
    assert len(told) == (2 if fails else 0) and OnTape.recorded == (0 if fails else 3), told
    assert all("\n" not in text and "not permitted" in text for text in told)


def test_what_changes_must_come_in_as_a_tensor():
    "The stand-in can tell: what is no input is repeated, and what reads a number is not recorded."
    weight, factor = torch.nn.Parameter(torch.ones(3)), [1.0]

    def careless(key, x):
        return (weight * x * factor[0]).sum().detach()

    step, found = OnTape(careless, "cpu"), []
    for i in range(6):
        factor[0] = float(i)
        found.append(step((), torch.full((3,), 1.0 + i)).item())
    assert found == [0.0, 6.0, 18.0, 36.0, 45.0, 54.0]  # from the fourth on the factor is that of the fourth
    reading = OnTape(lambda key, x: x.sum() * x[0].item(), "cpu")
    with pytest.warns(UserWarning, match="^a step could not be recorded as a CUDA graph, and runs without: operation"):
        assert [reading((), torch.ones(2)).item() for _ in range(5)] == [2.0] * 5


def test_the_state_of_the_scaler_is_in_every_checkpoint(digits, tmp_path):
    few = {"pretrain_steps": 2, "finetune_steps": 4}
    trainer = trained(digits, tmp_path / "run", precision="float16", recipe="crt", **few)[2]
    checkpoints = trainer.experiment.checkpoints
    stages = [stage for stage in checkpoints.stages() if stage.endswith("/it")]
    assert len(stages) == 3
    assert all(checkpoints.load(stage)["state"]["parts"]["scaler"]["scale"] > 0 for stage in stages)


@pytest.mark.parametrize("relaxation", ["fair", "sampled"])
def test_a_search_in_bfloat16_sees_the_losses_of_float32(digits, relaxation):
    """Ten steps in bfloat16, each loss beside float32's of the same weights and batch.

    Two searches in float32 whose weights differ by a thousandth are soon further apart than the two precisions are.
    """
    config = search_config(SEARCH, relaxation=relaxation, precision="bfloat16", warmup=0.0)
    searcher, found = Searcher(digits.images["train"], config), []
    honest = searcher.loss

    def both(batch, weights=None):
        searcher.engine.precision = None
        with torch.no_grad():
            exact = honest(batch, weights).item()
        searcher.engine.precision = torch.bfloat16
        loss = honest(batch, weights)
        found.append((loss.item(), exact))
        return loss

    searcher.loss = both
    for i in range(10):
        searcher(StepSeed(0, "search", *divmod(i, searcher.schedule.steps_per_epoch)), i / 10)
    ours, theirs = np.array(found).T
    assert len(ours) >= 20 and not np.array_equal(ours, theirs)
    np.testing.assert_allclose(ours, theirs, rtol=0.02)


def test_training_in_bfloat16_loses_as_in_float32(digits, tmp_path, monkeypatch):
    seen, honest = {}, loop.Fit.advance

    def advance(training, values, on_epoch):
        seen[precision].append(float(values["loss"]))
        honest(training, values, on_epoch)

    monkeypatch.setattr(loop.Fit, "advance", advance)
    for precision in ("bfloat16", "float32"):
        seen[precision] = []
        steps = {"pretrain_steps": 10, "finetune_steps": 10, "batch_size": 64, "embedding": 64}
        trained(digits, tmp_path / precision, precision=precision, **steps)
    assert len(seen["float32"]) == 20 and seen["bfloat16"] != seen["float32"]
    np.testing.assert_allclose(seen["bfloat16"], seen["float32"], rtol=0.02)


@pytest.mark.soak
def test_training_in_bfloat16_is_as_good_as_in_float32(digits, tmp_path):
    "The accuracy on the digits, the mean of three seeds, within two standard errors of the difference of two means."
    found = {}
    for precision in ("bfloat16", "float32"):
        for seed in range(3):
            steps = {"pretrain_steps": 40, "finetune_steps": 120, "batch_size": 64, "embedding": 64, "seed": seed}
            *_, trainer = trained(digits, tmp_path / f"{precision}{seed}", precision=precision, **steps)
            found.setdefault(precision, []).append(trainer.metrics("test")["accuracy"])
    means = {precision: np.mean(values) for precision, values in found.items()}
    error = np.sqrt(sum(np.var(values, ddof=1) / len(values) for values in found.values()))
    print(found)
    assert min(means.values()) > 0.5 and abs(means["bfloat16"] - means["float32"]) <= 2 * error


def full(most):
    "Stands in for a device on which no more than `most` images at a time have room: a hook of a module."

    def hook(module, inputs):
        if len(inputs[0]) > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    return hook


@pytest.mark.parametrize("relaxation", ["fair", "sampled"])
@pytest.mark.parametrize("together", [False, True])
def test_a_search_that_runs_out_of_memory_cuts_its_batches(digits, relaxation, together):
    searcher = Searcher(digits.images["train"], search_config(SEARCH, relaxation=relaxation, warmup=0.0))
    searcher.together = together
    searcher.net.stem[0].register_forward_pre_hook(full(32 if together else 16))
    with pytest.warns(UserWarning, match="memory ran out: .* 2 parts, .* a smaller batch_size") as told:
        for i in range(2):
            found = searcher(StepSeed(0, "search", 0, i), 0.5)
    assert len(told) == 1 and all(np.isfinite(float(value)) for value in found.values())
    assert {int(one["step"]) for one in searcher.alpha_optimizer.state.values()} == {2}
    searcher.net.stem[0].register_forward_pre_hook(full(4))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        searcher(StepSeed(0, "search", 0, 2), 0.5)


def test_a_training_that_runs_out_of_memory_cuts_its_batches(digits, tmp_path, monkeypatch):
    honest, seen = Network.features, []

    def features(net, x):
        if net.training:
            full(16)(net, (x,))
            seen.append(len(x))
        return honest(net, x)

    monkeypatch.setattr(Network, "features", features)
    with pytest.warns(UserWarning, match="memory ran out") as told:
        history = trained(digits, tmp_path / "run", finetune_steps=1)[0]
    assert len(told) == 1 and np.isfinite([row["loss"] for rows in history.values() for row in rows]).all()
    assert set(seen) == {16} and len(seen) == 2 * 6 * 2


def test_parts_are_those_of_the_images():
    images, draws = torch.arange(6).view(3, 2), torch.arange(6) + 10  # three images, a number for each of both views
    first, second = recipes.parts_of([images, draws], 2)
    assert [t.tolist() for t in first] == [[[0, 1]], [10, 13]]
    assert [t.tolist() for t in second] == [[[2, 3], [4, 5]], [11, 12, 14, 15]]
