"What a report says is made once: the pages lay the same words out, and what is not there leaves no trace."

import copy
import html
import re

import pytest

from ssnas_colab.reports.build import report_view, search_table
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
    headings = re.findall("(?m)^## (.*)", text)
    assert [heading for heading, _ in view.parts if heading in headings] == headings
    for heading, parts in view.parts:
        for part in parts:
            assert part.content and (part.only is not None) == (part.kind in ("picture", "drawing")), part
            if part.only is None:
                assert heading in page, heading
                pieces = {"table": lambda c: sum(map(list, c[1]), list(c[0])), "list": lambda c: [*c, *c.values()]}
                for said in pieces.get(part.kind, lambda c: [c] if isinstance(c, str) else c)(part.content):
                    assert str(said) in text and str(said) in page, said
    listed = [part.content for _, parts in view.parts for part in parts]
    whole = " ".join(one if isinstance(one, str) else " ".join(one) for one in listed if not isinstance(one, tuple))
    for name, said in vars(view).items():  # nothing that a report says is left out of the list
        if name in ("title", "measure", "names", "numbers", "parts", "pictures"):
            continue  # the heading, a word and names that are in sentences and tables, and what is drawn
        if isinstance(said, str):
            assert said in whole, name
        elif isinstance(said, tuple):
            assert said in listed or not said[1], name
        else:
            assert all(text in whole for text in said), name
    assert {part.content for _, parts in view.parts for part in parts if part.kind == "picture"} == {*view.pictures}


def test_a_report_without_a_searched_network_has_words():
    made = report()
    del made["models"]["searched"]
    view = report_view(made)
    assert view.genotype == view.genotype_note == "" and "nothing can be said" in view.verdict[0]
    assert "None" not in report_markdown(view) and "searched:" not in report_page(view, {})


def test_candidates_that_were_scored_for_unlike_steps_are_told_with_them():
    rows = [{"number": n, "score": 0.5, "steps": 20, "parameters": 900, "macs": 10**6 * (n + 1)} for n in range(2)]
    found = {"space": "stages", "strategy": "halving", "score": "rank", "candidates": 9, "taken": 1, "why": "It is."}
    head, lines = search_table({"search": found | {"front": rows}})[1:]
    assert head == ["candidate", "rank", "parameters", "M MACs"] and lines[1][:2] == ["1 (taken)", "0.5"]
    head, lines = search_table({"search": found | {"front": [rows[0], rows[1] | {"steps": 80}]}})[1:]
    assert head == ["candidate", "rank", "after steps", "parameters", "M MACs"] and lines[1][2] == 80
    for row in rows:  # an old report does not know
        del row["steps"]
    assert "after steps" not in search_table({"search": found | {"front": rows}})[1]
