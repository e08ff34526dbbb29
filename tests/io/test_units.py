import pytest

from autoseg.io.units import millimetres_per

SPELLINGS = {
    1e-3: "µm|μm|um|UM|micron|Microns|micrometer|micrometers|micrometre(s)|\\u00B5m|\\u00b5m|Âµm| µm ",
    1e-6: "nm|nanometer|nanometres",
    1e-7: "Å|\u212b|A\u030a|angstrom|Angstroms|Ångström",
    1.0: "mm|MM|millimeter|millimetres|mm.",
    10.0: "cm|centimeters",
    1000.0: "m|meter|Metres",
    25.4: "inch|inches|in|Inch",
}


@pytest.mark.parametrize(
    ("text", "expected"), [(text, mm) for mm, texts in SPELLINGS.items() for text in texts.split("|")]
)
def test_every_spelling_of_a_unit_is_the_same_length(text, expected):
    assert millimetres_per(text) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("text", ["", "pixel", "pixels", "reference frame", "?m", "s"])
def test_units_that_are_not_lengths_give_none(text):
    assert millimetres_per(text) is None
