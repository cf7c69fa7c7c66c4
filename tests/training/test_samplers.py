"The order of an epoch: shares, turns, groups, and the same order for the same keys."

import subprocess
import sys

import numpy as np
import pytest

from ssnas_colab.config import SAMPLERS
from ssnas_colab.core.seeding import epoch_order
from ssnas_colab.training.samplers import class_balanced_order, sampled_order, sampling_groups, square_root_order

COUNTS = np.array([900, 400, 100, 0, 25, 4])
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(6), COUNTS))


def shares(order):
    return np.bincount(LABELS[order], minlength=6)


@pytest.mark.parametrize("name, power", list(SAMPLERS.items()))
@pytest.mark.parametrize("count", [None, 100, 5000])
def test_every_class_gets_its_share_and_its_images_take_turns(name, power, count):
    order = sampled_order(name, LABELS, 0, "epoch", 1, count=count)
    count = len(LABELS) if count is None else count
    assert order.dtype == np.int64 and order.shape == (count,)
    exact = np.where(COUNTS > 0, COUNTS.astype(float) ** power, 0)
    assert np.abs(shares(order) - count * exact / exact.sum()).max() < 1 + 1e-9
    shown = np.bincount(order, minlength=len(LABELS))
    for k in np.flatnonzero(COUNTS):
        assert np.ptp(shown[LABELS == k]) <= 1


def test_shares_are_exact_on_average():
    drawn = np.mean([shares(sampled_order("square_root", LABELS, seed, count=30)) for seed in range(600)], axis=0)
    np.testing.assert_allclose(drawn, 30 * np.sqrt(COUNTS) / np.sqrt(COUNTS).sum(), atol=0.1)


def test_the_natural_order_is_the_order_of_training():
    order = sampled_order("natural", LABELS, 5, "finetune", 2)
    assert (order == epoch_order(len(LABELS), 5, "finetune", 2)).all()


def test_the_same_keys_give_the_same_order_also_elsewhere():
    order = class_balanced_order(LABELS, 3, "retrain", 7)
    assert (order == class_balanced_order(LABELS.astype(np.uint8), 3, "retrain", 7)).all()
    assert (order == sampled_order("class_balanced", LABELS, 3, "retrain", 7)).all()
    assert (square_root_order(LABELS, 3) == sampled_order("square_root", LABELS, 3)).all()
    for other in (class_balanced_order(LABELS, 4, "retrain", 7), class_balanced_order(LABELS, 3, "retrain", 8)):
        assert not np.array_equal(np.sort(other), np.sort(order))  # other images, not only another order
    code = "from ssnas_colab.training.samplers import *; print(class_balanced_order([0, 0, 0, 1, 2, 2], 1, 2).tolist())"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert there.strip() == str(class_balanced_order([0, 0, 0, 1, 2, 2], 1, 2).tolist())


def test_the_order_is_shuffled():
    order = class_balanced_order(LABELS, 0)
    first, second = shares(order[: len(order) // 2]), shares(order[len(order) // 2 :])
    assert np.abs(first - second).max() < 0.2 * first.max()


def test_several_labels_go_by_the_rarest():
    labels = np.zeros((1000, 3), np.uint8)
    labels[:600, 0], labels[500:700, 1], labels[690:700, 2] = 1, 1, 1
    groups = sampling_groups(labels)
    expected = np.repeat([0, 1, 2, 3], [500, 190, 10, 300])
    assert (groups == expected).all()
    order = class_balanced_order(labels, 0)
    assert np.bincount(groups[order]).tolist() == [250] * 4
    assert (order == class_balanced_order(labels.astype(float), 0)).all()
    assert labels[order][:, 2].mean() == 0.25  # one image in a hundred before


@pytest.mark.parametrize(
    "labels", [[], [-1, 0], [0.5, 1.0], [[0, 2], [1, 0]], np.zeros((2, 0)), np.zeros((2, 2, 2)), ["a", "b"]]
)
def test_labels_that_are_none_are_refused(labels):
    with pytest.raises(ValueError, match="labels must be"):
        sampling_groups(labels)


def test_a_wrong_name_or_count_is_refused():
    with pytest.raises(ValueError, match="natural, square_root, class_balanced"):
        sampled_order("balanced", LABELS, 0)
    with pytest.raises(ValueError, match="count is 0"):
        sampled_order("natural", LABELS, 0, count=0)
