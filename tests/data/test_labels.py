"Labels of arrays and lists, as Python, npz files and other libraries hold them."

from functools import partial

import numpy as np
import pytest
from refusal import refused

from ssnas_colab.data.labels import array_labels, is_missing, plain_text, sorted_classes, text_labels


def test_numbers_are_classes_in_any_dress():
    wanted = [0, 2, 1, 2]
    for values in (wanted, tuple(wanted), np.array(wanted, np.uint8), np.array(wanted, float)[:, None], list("0212"),
                   [float(i) for i in wanted], np.array(list("0212"), object), [[i] for i in wanted]):  # fmt: skip
        labels, names, decisions = array_labels(values, "the labels")
        assert labels.dtype == np.int64 and labels.tolist() == wanted and names == ("0", "1", "2") and decisions == []
    assert array_labels([True, False], "x")[0].tolist() == [1, 0]
    assert array_labels([1, 2, 3], "x")[:2][1] == ("0", "1", "2", "3")
    labels, names, decisions = array_labels([0, 255, 255, 0], "masks")
    assert labels.tolist() == [0, 1, 1, 0] and names == ("0", "255") and decisions


@pytest.mark.parametrize("nothing", [None, float("nan"), -1, np.nan])
def test_missing_labels_are_minus_one(nothing):
    labels, names, decisions = array_labels([0, nothing, 2, 1, nothing], "x")
    assert labels.tolist() == [0, -1, 2, 1, -1] and names == ("0", "1", "2") and "2 labels" in decisions[0]
    labels, names, decisions = array_labels(["cat", nothing, "dog", ""], "x")
    assert labels.tolist() == [0, -1, 1, -1] and names == ("cat", "dog") and decisions
    labels, names, _ = array_labels([[0, 1], [nothing, 1], [1, 1], [nothing, nothing]], "x")
    assert labels.dtype == np.int8 and labels.tolist() == [[0, 1], [-1, 1], [1, 1], [-1, -1]]
    refused("No image has a label", act=partial(array_labels, [nothing, nothing], "x"))


def test_uncertain_labels_are_what_they_are_said_to_be():
    for word, value in ((None, -1), ("missing", -1), ("positive", 1), ("negative", 0)):
        assert array_labels([0, -1, 1, np.nan], "x", uncertain=word)[0].tolist() == [0, value, 1, -1]
        assert array_labels([[0, -1], [1, 1]], "x", uncertain=word)[0].tolist() == [[0, value], [1, 1]]
    refused("-1 and 1", "uncertain", act=partial(array_labels, [-1, 1, 1], "x"))
    assert array_labels([-1, 1, 1], "x", uncertain="negative")[0].tolist() == [0, 1, 1]
    assert array_labels([-1, 1, 1], "x", class_names=["no", "yes"])[0].tolist() == [-1, 1, 1]
    refused("positive", act=partial(array_labels, [-1, 2, 1, 0], "x", uncertain="positive"))
    refused("perhaps", act=partial(array_labels, [0, 1], "x", uncertain="perhaps"))


def test_exactly_one_of_several_is_a_class():
    for values in (np.eye(3), np.eye(3, dtype=bool), np.eye(3, dtype=int).tolist()):
        labels, names, decisions = array_labels(values, "x", class_names=["a", "b", "c"])
        assert labels.tolist() == [0, 1, 2] and names == ("a", "b", "c") and "single-label" in decisions[0]
    labels, _, decisions = array_labels([[0, 1], [1, 0], [-1, -1]], "x")
    assert labels.tolist() == [1, 0, -1] and any("single-label" in text for text in decisions)
    labels, _, decisions = array_labels([[0, 1], [0, 0]], "x")
    assert labels.dtype == np.uint8 and labels.tolist() == [[0, 1], [0, 0]] and decisions == []


@pytest.mark.parametrize(
    "values, words",
    [
        ([0, 1, 2.5], ["2.5", "label 2"]),
        ([0, 1, 10**12], ["1e+12"]),
        ([0, 1, -3], ["-3"]),
        ([0, 1, np.inf], ["inf"]),
        ([[0, 7], [1, 0]], ["7", "column 1"]),
        ([[0.2, 0.8], [1, 0]], ["0.2"]),
        (np.zeros((2, 2, 2)), ["(2, 2, 2)"]),
        (np.array(5), ["()"]),
        ([], ["(0,)"]),
        (np.array([1j, 2]), ["complex"]),
        (np.array(["2020-01-01"], "datetime64[D]"), ["datetime"]),
    ],
)
def test_what_is_no_label_is_refused(values, words):
    refused("x.npz", *words, act=partial(array_labels, values, "x.npz"))


def test_class_names_count():
    assert array_labels([0, 1, 0], "x", class_names=["a", "b", "c"])[1] == ("a", "b", "c")
    assert array_labels(["b", "a"], "x", class_names=("b", "a"))[0].tolist() == [0, 1]
    assert array_labels(["u\u0308", "a"], "x", class_names=("a", "\u00fc"))[0].tolist() == [1, 0]
    refused("3", act=partial(array_labels, [0, 3], "x", class_names=["a", "b"]))
    refused("'c'", act=partial(array_labels, ["a", "c"], "x", class_names=["a", "b"]))
    refused("3", "2", act=partial(array_labels, [[0, 1, 1]] * 3, "x", class_names=["a", "b"]))


def test_lists_of_labels_for_each_image():
    labels, names, _ = array_labels([["b", "a"], ["a"], [], None], "x")
    assert labels.tolist() == [[1, 1], [1, 0], [0, 0], [-1, -1]] and names == ("a", "b")
    labels, names, _ = array_labels([[0, 2], [1], []], "x", class_names=["a", "b", "c"])
    assert labels.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]] and names == ("a", "b", "c")
    refused("'b'", act=partial(array_labels, [["a", "b"], "b", ["a"]], "x"))


def test_names_and_numbers():
    assert sorted_classes(["10", "9", "0.5"]) == ["0.5", "9", "10"] and plain_text(" 3.0 ") == "3"
    assert all(map(is_missing, [None, float("nan"), "", "NaN", "<NA>", "n/a", "unlabelled"])) and not is_missing("none")


def test_rows_without_any_label_stay_without_where_others_write_no():
    cells = [["1", ""], ["0", "1"], ["", ""], ["0", ""]]
    labels, _, said = text_labels(["a", "b"], cells, "x")
    assert labels.tolist() == [[1, 0], [0, 1], [-1, -1], [0, 0]] and any("blank means no" in text for text in said)
    labels, _, _ = text_labels(["a", "b"], [["1", ""], ["", "?"], ["1", "1"]], "x")
    assert labels.tolist() == [[1, 0], [0, -1], [1, 1]]
