"Clusters of embeddings and the order that visits them evenly."

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from ssnas_colab.training.samplers import balanced_order, cluster_images


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
        "print(hashlib.sha256(a.tobytes() + balanced_order(a, None, 7, 2).tobytes()).hexdigest())"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()
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
