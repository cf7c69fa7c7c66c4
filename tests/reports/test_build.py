"What a report says is made once: the pages lay the same words out, and what is not there leaves no trace."

import copy
import html
import re

import pytest

from ssnas_colab.reports.build import report_view
from ssnas_colab.reports.pages import report_markdown, report_page

from .hand_made import report
from .made_up import example_report

EVERY = {
    "one seed": lambda: example_report(searched=0.15, mobilenet=0.05),
    "three seeds": lambda: example_report(seeds=3, published=("DARTS_V2",)),
    "several labels": lambda: example_report(classes=3, task="multi-label"),
    "many classes": lambda: example_report(classes=30),
    "an old one": report,
}


@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
def test_both_pages_say_the_same(make):
    made = make()
    before = copy.deepcopy(made)
    view = report_view(made)
    assert made == before
    page = html.unescape(re.sub("<style>.*?</style>|<[^>]+>", "", report_page(view, {}), flags=re.DOTALL))
    text = report_markdown(view)
    single = [view.title, *view.models_notes, view.constant_answer, view.recipe, view.differences_note, view.time]
    single += [view.recall_note, view.data, *view.settings.values(), view.settings_note, view.genotype]
    for said in [*view.verdict, *single]:
        assert said in text and said in page, said
    for head, rows in (view.models, view.differences, view.recall, view.class_sizes):
        assert not rows or all(str(cell) in text and str(cell) in page for row in [head, *rows] for cell in row)


def test_a_report_without_a_searched_network_has_words():
    made = report()
    del made["models"]["searched"]
    view = report_view(made)
    assert view.genotype == view.genotype_note == "" and "nothing can be said" in view.verdict[0]
    assert "None" not in report_markdown(view) and "searched:" not in report_page(view, {})
