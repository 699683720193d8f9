"""The report as a file keeps hostile names as text, is complete and small enough, and shows well in a browser."""

import os
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

import cnnlib
from cnnlib.reports import image_set as report
from cnnlib.reports.image_set import render_report
from cnnlib.sealed.frozen.images import encode_png
from tests.unit.browser import faults_in_browser, needs_browser
from tests.unit.pictures import noise
from tests.unit.report_pages import HOSTILE, Page, contents_of, eventful, page_of


def test_hostile_names_stay_text():
    page = page_of(eventful())
    assert page.says("settings", " ".join(HOSTILE.split()))
    assert HOSTILE in page.rows["rejects"][-4][0]
    assert {"script", "iframe", "object", "embed", "link", "base"} & page.tags == set()
    assert [name for _, name, _ in page.attributes if name.startswith("on")] == []


def test_nothing_is_loaded_from_elsewhere():
    html = render_report(eventful())
    urls = [value for _, name, value in Page(html).attributes if name in ("src", "href", "srcset", "action", "data")]
    assert len(urls) > 600
    assert {re.match(r"data:image/|#", url) is not None for url in urls} == {True}
    style = html.partition("<style>")[2].partition("</style>")[0]
    assert len(style) > 1000
    assert re.search(r"url\(|@import|//", style) is None
    assert "default-src 'none'" in html


def test_links_within_the_page_lead_somewhere():
    page = page_of(eventful())
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {link.removeprefix("#") for link in page.values("a", "href")} <= set(ids)


def test_every_picture_has_words_and_every_header_its_scope():
    page = page_of(eventful())
    alts = page.values("img", "alt")
    assert len(alts) == len(page.values("img", "src"))
    assert all(alts)
    headers = sum(name == "scope" for tag, name, _ in page.attributes if tag == "th")
    assert headers == render_report(eventful()).count("<th ")


def test_order_of_counts_makes_no_difference():
    contents = eventful()
    turned = {
        name: dict(reversed(getattr(contents, name).items()))
        for name in ("sizes", "samples", "rejects", "reject_examples")
    }
    assert render_report(replace(contents, **turned)) == render_report(contents)


@pytest.mark.parametrize("classes", [1, 2, 10, 50, 51, 1000])
def test_any_number_of_classes(classes):
    names = [f"class {number}" for number in range(classes)]
    page = page_of(contents_of(names, range(1, classes + 1), samples={name: [b"\x89PNG"] for name in names}))
    assert [row[1] for row in page.rows["classes"][1:]] == names
    assert len(page.values("img", "src")) == classes
    # Many classes have a chart too.
    assert len(page.values("svg", "viewbox")) == (classes > 50)


@pytest.mark.parametrize("classes", [(), ("a", "b")])
def test_set_without_images(classes):
    page = page_of(contents_of(classes, [0] * len(classes), sizes={}))
    assert page.says("images", "0 images found = 0 kept + 0 duplicate + 0 rejected.")
    assert "sizes" not in page.text


def test_a_thousand_classes_of_large_samples_stay_below_10_mb():
    names = [f"{number:04d}" + "'" * 500 for number in range(1000)]
    large = encode_png(noise(64, 64))
    html = render_report(contents_of(names, [5] * 1000, val=[5] * 1000, samples={name: [large] * 8 for name in names}))
    assert 7_000_000 < len(html.encode()) < 10_000_000
    shown = html.count("<img ")
    assert Page(html).says("samples", f"This page has no room for {8000 - shown:,} more.")


def test_every_class_has_samples_when_room_is_short(monkeypatch):
    monkeypatch.setattr(report, "MOST_SAMPLE_BYTES", 5 * (100 + report.TAG_BYTES))
    samples = {"a": [bytes(100)] * 9, "b": [bytes(100)], "c": [bytes(100)] * 9}
    taken = report._samples_within(samples, ["a", "b", "c"])
    assert {name: len(pictures) for name, pictures in taken.items()} == {"a": 2, "b": 1, "c": 2}


def test_page_from_a_zipped_wheel_is_equal(tmp_path):
    archive = tmp_path / "wheel.zip"
    with zipfile.ZipFile(archive, "w") as wheel:
        library = Path(cnnlib.__file__).parent
        for file in {*library.rglob("*.py"), *library.glob("reports/*.*")}:
            wheel.write(file, f"cnnlib/{file.relative_to(library)}")
    script = (
        "import sys, cnnlib; from tests.unit.report_pages import eventful, render_report\n"
        "assert cnnlib.__file__.startswith(sys.argv[1]), cnnlib.__file__\n"
        "sys.stdout.buffer.write(render_report(eventful()).encode())"
    )
    project = Path(__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", script, str(archive)],
        env=os.environ | {"PYTHONPATH": f"{archive}{os.pathsep}{project}", "PYTHONHASHSEED": "1"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        check=True,
        timeout=300,
    )
    assert ended.stdout.decode() == render_report(eventful())


@needs_browser
def test_browser_shows_it_without_complaint_or_overflow(tmp_path):
    assert faults_in_browser(render_report(eventful()), tmp_path) == []
