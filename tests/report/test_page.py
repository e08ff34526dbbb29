"""Parts of a page: every text is escaped, and nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re

import numpy as np
import pytest
from html_reader import sound

from autoseg.report.page import (
    Link,
    Section,
    facts,
    folded,
    heading,
    heat,
    keys,
    number,
    page,
    picture,
    preformatted,
    slices,
    swatch,
    table,
    warnings,
)  # fmt: skip

NASTY = "<b>x & \"y\" 'z'</b><script>alert(1)</script>"
GREY = np.full((4, 6, 3), 128, dtype=np.uint8)


def test_names_are_texts_wherever_they_stand():
    parts = (
        heading(NASTY, "place"), facts({NASTY: NASTY}), warnings([NASTY]), preformatted(NASTY),
        table([NASTY], [[NASTY], [Link(NASTY, "place")]], name="rows"), heat([NASTY], [[0.5]]),
        keys([(swatch(GREY), NASTY)], NASTY), slices([(NASTY, GREY)], NASTY), folded(NASTY, "content"),
    )  # fmt: skip
    reader = sound(page(NASTY, NASTY, [Section(NASTY, parts)]))
    assert [tag for tag, _ in reader.tags if tag in ("b", "script")] == ["script"]
    for tag in ("title", "h1", "h2", "h3", "dt", "dd", "pre", "td", "th", "li", "figcaption", "button", "summary"):
        assert NASTY in "".join(reader.text_of(tag)), tag


def test_only_the_script_of_the_page_may_run():
    text = page("title", "", [])
    script = re.search(r"<script>(.*)</script>", text, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text


def test_sections_without_content_are_left_out():
    reader = sound(page("title", "", [Section("nothing", ("", "")), Section("something", ("", warnings(["one"])))]))
    assert reader.text_of("h2") == ["something"]
    assert table(["a"], []) == facts({"a": None, "b": ""}) == warnings([]) == keys([]) == folded("a", "") == ""


def test_cells_keep_their_numbers_for_sorting():
    reader = sound(page("", "", [Section("s", (table(["a"], [[0.123456789], [None], [np.float64(2)], [1234567]]),))]))
    cells = [attributes["data-value"] for tag, attributes in reader.tags if tag == "td"]
    assert cells == ["0.123456789", "", "2.0", "1234567"]
    assert reader.text_of("td") == ["0.1235", "\N{EN DASH}", "2.000", "1,234,567"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0000"),
        (0.81299, "0.8130"),
        (-3.25, "-3.250"),
        (40.0, "40.00"),
        (1e-5, "1e-05"),
        (123456.0, "1.235e+05"),
    ],
)
def test_numbers_of_one_size_have_the_same_decimals(value, text):
    assert number(value) == text


def test_pictures_are_in_the_page_and_have_a_text():
    reader = sound(page("", "", [Section("s", (slices([("truth", GREY)], "case 1"), picture(b"png", "experts")))]))
    images = [attributes for tag, attributes in reader.tags if tag == "img"]
    assert [image["alt"] for image in images] == ["truth of case 1", "experts"]
    assert all(image["src"].startswith("data:image/png;base64,") for image in images)
