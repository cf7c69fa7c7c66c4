"What the pictures of a report show: labels apart, bars as long as they should be, nothing where there is nothing."

import math
import xml.etree.ElementTree as xml

import numpy as np
import pytest
from matplotlib.text import Text

from ssnas_colab.core.basics import UserError
from ssnas_colab.reports.figures import confusion_picture, plot_curves, plot_report

from .hand_made import as_markdown, drawn, of_seeds, report
from .made_up import example_report

SVG = "{http://www.w3.org/2000/svg}"


def boxes(texts, figure):
    "Where texts stand; lines that tie a label to its point do not count."
    renderer = figure.canvas.get_renderer()
    return [Text.get_window_extent(text, renderer) for text in texts if text.get_text() and text.get_visible()]


@pytest.mark.parametrize("classes, factor", [(2, 9), (3, 30), (10, 100), (20, 1), (100, 100), (4, 12)])
@pytest.mark.parametrize("randoms", [(), (0.8, 0.8), tuple(np.linspace(0.5, 0.8, 12))])
def test_pictures_have_no_overlapping_labels(classes, factor, randoms):
    from matplotlib import pyplot

    train = [round(1000 * factor ** (-k / (classes - 1))) for k in range(classes)]
    figure = drawn(plot_report(report(0.8, 0.8, 0.8, randoms, classes=classes, train=train)))
    assert not pyplot.get_fignums() and figure.dpi == 75
    left, right = figure.axes
    assert len(left.texts) == 3 + len(randoms)
    for texts in (left.texts, right.get_xticklabels() + right.get_xticklabels(minor=True), left.get_xticklabels()):
        found = boxes(texts, figure)
        assert not any(a.overlaps(b) for i, a in enumerate(found) for b in found[:i])
    assert (right.get_xscale() == "log") == (factor > 10)
    assert all(left.bbox.y0 - 9 < box.y0 and box.y1 < left.bbox.y1 + 9 for box in boxes(left.texts, figure))
    edge = right.get_tightbbox(figure.canvas.get_renderer())
    assert all(box.x1 <= edge.x0 for box in boxes(left.texts, figure)) and edge.x1 <= figure.bbox.x1


@pytest.mark.parametrize("only", ["recall", None, "size"])
def test_long_names_push_nothing_out_of_the_picture(only):
    made = example_report(classes=4, mobilenet=0.05, published=("DARTS_V2",))
    long = "efficientnet_lite0_probe", "timm_a_network_of_a_very_long_name_indeed_in1k_finetuned"
    for name in (*long, "taught_by_efficientnet_lite0_finetuned"):
        made["models"][name] = made["models"]["resnet_small"] | ({"teacher": "t"} if name.startswith("taught") else {})
    figure = drawn(plot_report(made, only=only))
    for legend in figure.legends:
        box = legend.get_window_extent()
        assert 0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0
        assert {"searched, with a teacher", "EfficientNet-Lite0, frozen"} <= {text.get_text() for text in legend.texts}
    assert len(figure.legends) == (only != "size")
    ticks = boxes(figure.axes[0].get_xticklabels(), figure)
    assert not any(a.overlaps(b) for i, a in enumerate(ticks) for b in ticks[:i])


def test_a_matrix_of_two_classes_is_as_wide_as_its_title():
    made = example_report(classes=2)
    root = xml.fromstring(confusion_picture(made))
    title = next(text for text in root.iter(f"{SVG}text") if "percent of each true class" in text.text)
    assert float(root.get("width")) >= 12 + 7.2 * len(title.text)


def test_ticks_are_plain_where_all_sizes_are_close():
    left = drawn(plot_report(report(large="absent"))).axes[0]
    assert not any(text.get_text() for text in left.get_xticklabels(minor=True))
    assert [text.get_text() for text in left.get_xticklabels() if text.get_text()]


def test_pictures_of_reports_with_gaps():
    gaps = report(None, None, "absent", (0.5, None))
    gaps["data"]["counts"]["train"][-1] = 0
    alone = report(0.8, "absent", "absent", ())
    none = report(None, "absent", "absent", ())
    for made in (gaps, alone, none, report(task="multi-label")):
        drawn(plot_report(made))
        assert "None" not in as_markdown(made)
    assert [t.get_text() for t in plot_report(gaps).axes[0].texts] == ["random genotype 0  50.0 %"]


def test_error_bars_are_the_spread_over_seeds_else_the_standard_error():
    made = report(0.8, "absent", "absent", ())
    [bar] = plot_report(made).axes[0].containers
    ends = bar.lines[2][0].get_segments()[0][:, 1]
    assert np.allclose((ends[1] - ends[0]) / 2, math.sqrt(4 * 0.16 / 25) / 4)
    [bar] = plot_report(of_seeds(made, {})).axes[0].containers
    assert np.allclose(np.diff(bar.lines[2][0].get_segments()[0][:, 1]) / 2, 0.012)


def test_intervals_of_the_recalls_are_drawn_for_the_searched_network():
    made = example_report(classes=5)
    [bars] = plot_report(made).axes[1].containers
    ends = np.sort([np.sort(segment[:, 1]) for segment in bars.lines[2][0].get_segments()], axis=0)
    assert np.allclose(ends, np.sort(made["models"]["searched"]["recall_interval_per_class"], axis=0))


def test_rows_of_the_confusion_matrix_are_shares_from_the_largest_class():
    made = report(classes=3, train=[10, 300, 20])
    made["models"]["searched"]["confusion"] = [[0, 1, 3], [0, 5, 5], [0, 0, 0]]
    shapes = xml.fromstring(confusion_picture(made))
    fields = [shape for shape in shapes.iter(f"{SVG}rect") if "fill-opacity" in shape.get("style", "")]
    columns, rows = (sorted({float(field.get(key)) for field in fields}) for key in ("x", "y"))
    assert len(columns) == 2 and len(rows) == 2 and rows[1] - rows[0] == 2 * (columns[1] - columns[0])  # c2 has none
    texts = [text.text for text in shapes.iter(f"{SVG}text")]
    assert [text for text in texts if text.isdigit()] == ["50", "50", "25", "75"]
    assert [text for text in texts if text in ("c0", "c1", "c2")] == ["c1", "c1", "c2", "c2", "c0", "c0"]  # row, column
    for name in ("resnet18", "nothing"):
        with pytest.raises(UserError, match=f"no confusion matrix of {name}"):
            confusion_picture(made, name)
    many = report(classes=30)
    many["models"]["searched"]["confusion"] = np.eye(30, dtype=int).tolist()
    texts = xml.fromstring(confusion_picture(many)).iter(f"{SVG}text")
    assert not any(text.text.isdigit() or text.text == "c0" for text in texts)


def test_curves_leave_out_panels_that_no_model_has():
    curves = {"searched": {"finetuning_loss": [2.0, 1.0], "validation": [0.1, None]}, "resnet18": {}}
    left, right = plot_curves({"curves": curves}).axes
    assert left.lines[0].get_ydata().tolist() == [2.0, 1.0] and np.isnan(right.lines[0].get_ydata()[1])
    for nothing in ({}, {"curves": {}}, {"curves": {"searched": {"validation": []}}}):
        with pytest.raises(UserError, match="evaluate again"):
            plot_curves(nothing)


def test_class_names_are_not_read_as_mathematics():
    made = example_report(classes=3)
    made["data"]["class_names"] = ["$x^$", "100 $", r"\frac"]
    drawn(plot_report(made))
    assert "$x^$" in confusion_picture(made)
