"The order of an epoch: shares, turns, groups, clusters of embeddings, and the same order for the same keys."

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from ssnas_colab.config import SAMPLERS
from ssnas_colab.core.seeding import epoch_order
from ssnas_colab.training.samplers import balanced_order, cluster_images, sampled_order, sampling_groups

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


def test_the_same_keys_give_the_same_order():
    order = sampled_order("class_balanced", LABELS, 3, "retrain", 7)
    assert (order == sampled_order("class_balanced", LABELS.astype(np.uint8), 3, "retrain", 7)).all()
    for keys in ((4, "retrain", 7), (3, "retrain", 8)):
        other = sampled_order("class_balanced", LABELS, *keys)
        assert not np.array_equal(np.sort(other), np.sort(order))  # other images, not only another order


def test_the_order_is_shuffled():
    order = sampled_order("class_balanced", LABELS, 0)
    first, second = shares(order[: len(order) // 2]), shares(order[len(order) // 2 :])
    assert np.abs(first - second).max() < 0.2 * first.max()


def test_several_labels_go_by_the_rarest():
    labels = np.zeros((1000, 3), np.uint8)
    labels[:600, 0], labels[500:700, 1], labels[690:700, 2] = 1, 1, 1
    groups = sampling_groups(labels)
    expected = np.repeat([0, 1, 2, 3], [500, 190, 10, 300])
    assert (groups == expected).all()
    order = sampled_order("class_balanced", labels, 0)
    assert np.bincount(groups[order]).tolist() == [250] * 4
    assert (order == sampled_order("class_balanced", labels.astype(float), 0)).all()
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


def looks(sizes=(300, 60, 12), seed=0):
    "Embeddings around three directions, and which of them each belongs to."
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(len(sizes)), sizes)
    return np.eye(len(sizes), 16)[of] * rng.uniform(0.5, 2, (len(of), 1)) + 0.05 * rng.normal(size=(len(of), 16)), of


def test_clusters_find_directions_whatever_the_length():
    embeddings, of = looks()
    found = cluster_images(embeddings, 3, 0)
    assert found.dtype == np.int64 and len({(a, b) for a, b in zip(found, of, strict=True)}) == 3
    assert (cluster_images(1000 * embeddings, 3, 0) == found).all()
    assert len(np.unique(cluster_images(embeddings, None, 0))) <= round(np.sqrt(len(of) / 2))
    assert set(cluster_images(embeddings[:2], 9, 0)) <= {0, 1}
    for wrong in (embeddings[:1], embeddings[0], np.full((4, 2), np.nan)):
        with pytest.raises(ValueError, match="embeddings"):
            cluster_images(wrong)


def test_the_same_keys_give_the_same_bits_in_another_process():
    code = (
        "import numpy as np, hashlib; from ssnas_colab.training.samplers import *; "
        "x = np.random.default_rng(0).normal(size=(3000, 32)); a = cluster_images(x, None, 7, 'search', 2); "
        "print(hashlib.sha256(a.tobytes() + balanced_order(a, None, 7, 2).tobytes()).hexdigest()); "
        "print(sampled_order('class_balanced', [0, 0, 0, 1, 2, 2], 1, 2).tolist())"
    )
    told, few = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.splitlines()
    assert few == str(sampled_order("class_balanced", [0, 0, 0, 1, 2, 2], 1, 2).tolist())
    x = np.random.default_rng(0).normal(size=(3000, 32))
    found = cluster_images(x, None, 7, "search", 2)
    order = balanced_order(found, None, 7, 2)
    assert told == hashlib.sha256(found.tobytes() + order.tobytes()).hexdigest()
    x = looks()[0]
    assert (cluster_images(x, 20, 1) != cluster_images(x, 20, 2)).any()


def test_every_cluster_and_every_image_of_it_comes_equally_often():
    of = looks()[1]
    order = balanced_order(of, None, 0, 5)
    assert len(order) == 372 and np.bincount(of[order]).tolist() == [124, 124, 124]
    times = np.bincount(order, minlength=372)
    assert set(times[of == 0]) == {0, 1} and set(times[of == 1]) == {2, 3} and set(times[of == 2]) == {10, 11}
    assert (balanced_order(of, None, 0, 5) == order).all() and (balanced_order(of, None, 0, 6) != order).any()
    assert len(balanced_order(of, 1000, 0)) == 1000 and len(balanced_order(of, 2, 0)) == 2


def test_evenness_goes_from_plain_to_even():
    of = looks()[1]
    assert (np.sort(balanced_order(of, None, 0, evenness=0)) == np.arange(372)).all()
    half = np.bincount(of[balanced_order(of, None, 0, evenness=0.5)])
    root = np.sqrt([300, 60, 12])
    assert np.abs(half - 372 * root / root.sum()).max() <= 1
    gaps = np.array([0, 0, 3, 3, 3])  # numbers of clusters without images
    assert np.bincount(gaps[balanced_order(gaps, 10, 0)]).tolist() == [5, 0, 0, 5]
    for wrong in (-0.1, 1.1):
        with pytest.raises(ValueError, match="evenness"):
            balanced_order(of, evenness=wrong)
