"""The page of an evaluation has all figures, keeps hostile names as text, and shows well in a browser."""

import json
import re
import warnings
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from cnnlib.evaluation.gates import Gate
from cnnlib.evaluation.metrics import Confusion, reliability_of
from cnnlib.reports.evaluation import render_evaluation
from cnnlib.reports.figures import confusion_figure, reliability_figure
from tests.unit.browser import faults_in_browser, needs_browser
from tests.unit.evaluations import evaluation_of, eventful_evaluation
from tests.unit.report_pages import HOSTILE, Page

GATES = (
    Gate("accuracy", "lower by at most 0", "0.9300", "0.9200", "lower by 0.0100", False),
    Gate("speed", "at least 0.8 of the champion's", "10 images/s", "20 images/s", "2.00 of the champion's", True),
)


def rendered(evaluation, gates=()) -> str:
    figures = {
        "confusion_matrix.svg": confusion_figure(evaluation.confusion),
        "reliability.svg": reliability_figure(evaluation.reliability),
    }
    return render_evaluation(evaluation, figures, {"model": "models:/digits/7", "data": {"path": HOSTILE}}, gates)


def test_figures_stand_in_their_tables():
    evaluation = evaluation_of(
        ("cat", "dog"), [[90, 10], [30, 70]], robustness={"gaussian_noise": 0.65}, top_5_accuracy=None
    )
    page = Page(rendered(evaluation))
    assert page.says("", "160 of 200 images right: accuracy 0.8000, on the test split of")
    assert page.rows["metrics"] == [
        ["accuracy", "0.8000"],
        ["its 95% interval (Wilson)", "0.739 to 0.850"],
        ["log loss", "0.2500"],
        ["expected calibration error", "0.0727"],
        ["mean over", "precision", "recall", "F1"],
        ["classes", "0.8125", "0.8000", "0.7980"],
        ["images", "0.8125", "0.8000", "0.7980"],
    ]
    assert page.rows["classes"][1:] == [
        ["cat", "100", "0.7500", "0.9000", "0.8182"],
        ["dog", "100", "0.8750", "0.7000", "0.7778"],
    ]
    assert page.rows["confusion"][1:] == [["dog", "cat", "30", "30.0%"], ["cat", "dog", "10", "10.0%"]]
    assert page.rows["robustness"][1:] == [["none", "0.8000", ""], ["gaussian noise", "0.6500", "-0.1500"]]
    notes = page.text[""]
    assert "more than 10 points of accuracy: gaussian noise (65.0%)" in " ".join(notes.split())
    assert "probabilities are off by 7.3%" in notes
    assert not page.text["gates"]


def test_notes_on_weaknesses_come_first():
    page = Page(rendered(eventful_evaluation(), GATES))
    notes = " ".join(page.text[""].split())
    assert "did not pass 1 of 2 gates" in notes
    assert "3 images could not be decoded and count as wrong: 2 truncated, 1 not_an_image" in notes
    assert "1 of the classes has a recall more than 10 points below the accuracy" in notes
    assert page.rows["gates"][1][-2:] == ["lower by 0.0100", "no"]
    assert page.rows["gates"][2][-2:] == ["2.00 of the champion's", "yes"]


def test_hostile_names_stay_text_and_nothing_is_loaded():
    html = rendered(eventful_evaluation(), GATES)
    page = Page(html)
    assert HOSTILE in page.rows["classes"][1][0]
    assert "$x^2$ {{ 7 * 7 }}" in page.rows["classes"][2][0]
    assert {"script", "iframe", "object", "embed", "link", "base", "svg"} & page.tags == set()
    assert [name for _, name, _ in page.attributes if name.startswith("on")] == []
    urls = [value for _, name, value in page.attributes if name in ("src", "href", "srcset", "action", "data")]
    assert {re.match(r"data:image/|#", url) is not None for url in urls} == {True}
    assert {link.removeprefix("#") for link in page.values("a", "href")} <= set(page.text)
    assert len(page.values("img", "alt")) == len(page.values("img", "src")) == 5


@pytest.mark.parametrize("classes", [1, 2, 20, 21, 60, 1000])
def test_figures_of_any_number_of_classes_are_sound_and_equal(classes):
    names = ("$\\frac{", "猫", "<&>", *map(str, range(1000)))[:classes]
    confusion = Confusion(names, np.eye(classes, dtype=int) * 7000, np.zeros(classes, int))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = confusion_figure(confusion)
    assert svg == confusion_figure(confusion)
    text = " ".join(ElementTree.fromstring(svg).itertext())
    assert ("猫" in text) == (2 <= classes <= 50)
    assert ("7,000" in text) == (classes <= 20)


def test_reliability_of_nothing_can_be_drawn():
    assert b"</svg>" in reliability_figure(reliability_of({}))


@needs_browser
@pytest.mark.parametrize("classes", [6, 60])
def test_browser_shows_it_without_complaint_or_overflow(tmp_path, classes):
    assert faults_in_browser(rendered(eventful_evaluation(classes), GATES), tmp_path) == []


def test_log_loss_without_any_prediction_is_null_in_json():
    evaluation = evaluation_of(("cat", "dog"), [[0, 0], [0, 0]], log_loss=float("nan"))
    evaluation = replace(evaluation, confusion=replace(evaluation.confusion, failed=np.array([2, 3])))
    content = json.loads(json.dumps(evaluation.as_dict(), allow_nan=False))
    assert (content["metrics"]["log_loss"], content["metrics"]["accuracy"]) == (None, 0)
    assert Page(rendered(evaluation)).rows["metrics"][2] == ["log loss", "nan"]
