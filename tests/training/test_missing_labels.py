"""Images of which few have a label: all are pretrained on, those with labels are fine-tuned and measured."""

import threading
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from ssnas_colab.config import evaluation_config
from ssnas_colab.core.device import HeldImages
from ssnas_colab.experiment.run import Run
from ssnas_colab.models.baselines import ResNet
from ssnas_colab.stages.loader import load_data
from ssnas_colab.training import recipes
from ssnas_colab.training.class_losses import LOSSES, class_loss, log_odds
from ssnas_colab.training.metrics import auc_per_class, balanced_accuracy, report_metrics
from ssnas_colab.training.recipes import Trainer, knn_classifier, linear_classifier
from ssnas_colab.training.samplers import sampled_order, sampling_groups

SEVERAL = sorted(name for name, task in LOSSES if task == "multi-label")
RNG = np.random.default_rng(0)


def holes(labels, share=0.3, seed=1):
    return np.where(np.random.default_rng(seed).random(labels.shape) < share, -1, labels).astype(np.int8)


@pytest.mark.parametrize("name", SEVERAL)
def test_missing_labels_count_for_nothing_in_a_loss(name):
    torch.manual_seed(0)
    whole = RNG.integers(0, 2, (40, 3))
    marked, logits = holes(whole), torch.randn(40, 3, dtype=torch.float64, requires_grad=True)
    counts, known = (marked == 1).sum(0), (marked >= 0).sum(0)
    cost = class_loss(name, counts, "multi-label", known)
    loss = cost(logits, torch.from_numpy(marked))
    alone = []  # each known label as if it were the only one
    for row, column in np.argwhere(marked >= 0):
        one = torch.from_numpy(np.full_like(marked, -1))
        one[row, column] = int(marked[row, column])
        alone.append(cost(logits, one))
    assert loss.item() == pytest.approx(torch.stack(alone).mean().item(), rel=1e-9)
    gradient = torch.autograd.grad(loss, logits)[0].numpy()
    assert (gradient[marked < 0] == 0).all() and (gradient[marked >= 0] != 0).mean() > 0.9
    full = class_loss(name, whole.sum(0), "multi-label", len(whole))
    plain, signed = (full(logits, torch.from_numpy(whole.astype(kind))) for kind in (np.uint8, np.int8))
    assert plain.item() == pytest.approx(signed.item(), rel=1e-12)


def test_odds_are_of_the_images_on_which_a_label_is_known():
    found = log_odds([3, 3], np.array([6, 12])).tolist()
    assert found == pytest.approx([0.0, np.log(3 / 9)])
    with pytest.raises(ValueError, match="total"):
        log_odds([3, 3], np.array([6, 2]))


def test_metrics_are_of_the_labels_that_are_known():
    labels, scores = RNG.integers(0, 2, (60, 3)), RNG.random((60, 3))
    marked = holes(labels)
    report = report_metrics(scores, marked, "multi-label", ["a", "b", "c"])
    for k in range(3):
        known = marked[:, k] >= 0
        one = report_metrics(scores[known, k : k + 1], marked[known, k : k + 1], "multi-label")
        assert report["auc_per_class"][k] == pytest.approx(roc_auc_score(marked[known, k], scores[known, k]))
        for key in ("recall_per_class", "average_precision_per_class", "recall_interval_per_class", "count_per_class"):
            assert report[key][k] == one[key][0], key
    known = marked >= 0
    assert report["accuracy"] == ((scores > 0.5) == (marked == 1))[known].mean()
    assert report["balanced_accuracy"] == balanced_accuracy(marked, scores > 0.5)
    nobody = np.column_stack([marked[:, 0], np.full(60, -1)])
    assert auc_per_class(nobody, scores[:, :2])[1] is None
    assert report_metrics(scores[:, :2], nobody, "multi-label")["macro_auc"] == report["auc_per_class"][0]


def test_a_sampler_takes_what_nobody_knows_for_not_set():
    marked = holes(RNG.integers(0, 2, (50, 4)))
    assert (sampling_groups(marked) == sampling_groups(np.maximum(marked, 0))).all()
    assert len(sampled_order("class_balanced", marked, 0)) == 50


def test_probes_learn_from_what_is_known():
    features = RNG.normal(size=(200, 5))
    labels = np.column_stack([features[:, 0] > 0, features[:, 1] > 0]).astype(np.int64)
    marked = holes(labels, 0.6)
    for made in (linear_classifier(features, marked, 2), knn_classifier(features, marked, 2, 10)):
        if isinstance(made, torch.nn.Module):
            with torch.no_grad():
                right = (made(torch.from_numpy(features).float()).numpy() > 0) == labels
        else:
            right = (made(features) > 0.5) == labels
        assert right.mean() > 0.8
    blank = np.column_stack([marked[:, 0], np.full(200, -1)])
    linear_classifier(features, blank, 2)


@pytest.fixture(scope="module")
def partly():
    "Digits of which 60 have a label."
    digits = load_digits()
    chosen = np.flatnonzero(np.isin(digits.target, [0, 1, 4]))[:400]
    labels = np.searchsorted([0, 1, 4], digits.target[chosen])
    images = np.floor(digits.images[chosen] * (255 / 16) + 0.5).astype(np.uint8)
    return load_data((images, np.where(np.arange(400) % 7 == 0, labels, -1)))


def trainer_of(data, path, **changes):
    few = {"pretrain_steps": 20, "finetune_steps": 40, "batch_size": 16, "embedding": 16, "device": "cpu"}
    config = evaluation_config("quick", **few | changes)
    made = partial(ResNet, (1, 1), 8, data.num_classes, 1)
    return Trainer("net", made, data, Run.open(path, {}), config, quiet=True)


@pytest.mark.parametrize("recipe", ["pretrain+finetune", "crt", "linear_probe", "knn"])
def test_every_recipe_learns_from_few_labels(partly, tmp_path, monkeypatch, recipe):
    made = trainer_of(partly, tmp_path / "run", recipe=recipe)
    known, drawn = set(partly.labelled().tolist()), made.batches
    seen = {"pretrain": set(), "finetune": set(), "retrain": set()}

    def batches(stage, *more):
        function = drawn(stage, *more)
        return lambda *at: [chosen := function(*at), seen[stage].update(chosen.tolist())][0]

    monkeypatch.setattr(made, "batches", batches)
    made.run()
    assert len(seen["pretrain"] - known) > 100
    assert seen["finetune"] <= known and seen["retrain"] <= known
    if recipe == "pretrain+finetune":
        assert seen["finetune"] == known
    assert made.scores("test").shape == (len(partly.images["test"]), 3)
    assert np.isfinite(made.metrics("test")["balanced_accuracy"])


def test_the_images_without_a_label_are_answered_better_than_by_chance(partly, tmp_path):
    made = trainer_of(partly, tmp_path / "run", finetune_steps=60, finetune_rate=5e-3)
    made.run()
    unknown = np.setdiff1d(np.arange(len(partly.images["train"])), partly.labelled())
    digits = load_digits()
    truth = digits.target[np.flatnonzero(np.isin(digits.target, [0, 1, 4]))[:400]][partly.indices["train"][unknown]]
    with torch.no_grad():
        answers = made.net.eval()(made.inputs(made.images["train"][torch.from_numpy(unknown)])).argmax(1).numpy()
    assert (np.array([0, 1, 4])[answers] == truth).mean() > 0.45


def test_held_images_are_the_same_wherever_they_lie(tmp_path):
    images = RNG.integers(0, 256, (30, 1, 4, 4), dtype=np.uint8)
    mapped = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.uint8, images.shape)
    mapped[:] = images
    for held in (HeldImages(images, "cpu"), HeldImages(images, "cpu", free=10), HeldImages(mapped, "cpu", free=10)):
        assert (held[torch.tensor([3, 29, 3])].numpy() == images[[3, 29, 3]]).all() and len(held) == 30
        assert (torch.cat([*held.split(7)]).numpy() == images).all()


def test_the_next_images_are_read_while_others_are_computed_with(tmp_path):
    mapped = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.uint8, (6, 1, 2, 2))
    mapped[:] = np.arange(6).reshape(-1, 1, 1, 1)
    batches = torch.arange(6).split(2)
    assert HeldImages(np.array(mapped), "cpu")._reader is None  # what is near is not read ahead
    for held in (HeldImages(mapped, "cpu"), HeldImages(np.array(mapped), "cpu", free=10)):
        reading, own, calls = threading.Event(), held.read, []
        held.read = lambda at, own=own, reading=reading, calls=calls: calls.append(at) or reading.set() or own(at)
        for number, batch in enumerate(batches):
            assert (held[batch].flatten(1).numpy() == batch[:, None].numpy()).all()
            reading.clear()
            for following in batches[number + 1 : number + 2]:
                held.expect(following)
                assert reading.wait(10)  # a step that ends only when the next images are being read
        assert len(calls) == 3  # none was read twice
        held.expect(batches[0])
        assert (held[batches[2]] == held[torch.tensor([4, 5])]).all()  # whoever asks for others gets those


def test_a_training_reads_ahead_and_its_bits_are_the_same(partly, tmp_path, monkeypatch):
    found, told = [], []
    for free in (None, 10):
        monkeypatch.setattr(recipes, "HeldImages", lambda images, device, free=free: HeldImages(images, device, free))
        made = trainer_of(partly, tmp_path / str(free), pretrain_steps=5, finetune_steps=10)
        expect = made.images["train"].expect
        made.images["train"].expect = lambda at, expect=expect: told.append(len(at)) or expect(at)
        made.run()
        found.append(made.net.state_dict())
    assert all(map(torch.equal, found[0].values(), found[1].values())) and any(told)


def test_images_that_do_not_fit_on_the_device_are_not_copied_there(monkeypatch):
    from ssnas_colab.core import device

    moved, images = [], np.zeros((100, 1, 8, 8), np.uint8)
    plain = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *to, **how: moved.append(len(self)) or plain(self, *to, **how))
    monkeypatch.setattr(device, "free_memory", lambda of: 3 * images.size - 1)
    held = HeldImages(images, "meta")
    assert not moved and held.index_device.type == "cpu"
    held[torch.arange(5)]
    assert moved == [5]
    monkeypatch.setattr(device, "free_memory", lambda of: 3 * images.size)
    assert HeldImages(images, "meta").index_device.type == "meta" and moved == [5, 100]
