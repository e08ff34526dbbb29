"""Units of length in millimetres, in every spelling that microscopes and image editors write."""

from __future__ import annotations

import re
import unicodedata
from contextlib import suppress

_PREFIXES = {
    ("", ""): 1e3,
    ("deci", "d"): 1e2,
    ("centi", "c"): 1e1,
    ("milli", "m"): 1.0,
    ("micro", "µ"): 1e-3,
    ("micro", "u"): 1e-3,
    ("micro", "mc"): 1e-3,
    ("nano", "n"): 1e-6,
    ("pico", "p"): 1e-9,
}
"""(Prefix as a word, as a symbol) of the metre -> mm."""
_OTHERS = {
    "micron": 1e-3, "mu": 1e-3, "µ": 1e-3,
    "angstrom": 1e-7, "ångström": 1e-7, "ångstrom": 1e-7, "å": 1e-7, "ang": 1e-7,
    "inch": 25.4, "inche": 25.4, "in": 25.4, '"': 25.4, "mil": 0.0254, "thou": 0.0254,
}  # fmt: skip


def _folded(text: str) -> str:
    """Return the unit in a normal spelling: one code point per letter, lower case, no dots or blanks at the ends."""
    return unicodedata.normalize("NFKC", text).lower().strip(" .\t\r\n\0")


def _table() -> dict[str, float]:
    """Return normal spelling of a unit (:func:`_folded`, singular) -> mm."""
    table = dict(_OTHERS)
    for (word, symbol), millimetres in _PREFIXES.items():
        for name in (f"{word}meter", f"{word}metre", f"{symbol}m"):
            table[name] = millimetres
    return {_folded(name): millimetres for name, millimetres in table.items()}


_MILLIMETRES = _table()


def millimetres_per(unit: str) -> float | None:
    r"""Return the number of millimetres per unit; None if the unit is unknown or not a length (``pixel``, empty).

    The following make no difference: letter case, plurals, the two code points each of the micro and the Angstrom sign,
    ``\u00b5`` as an escape sequence (ImageJ), and UTF-8 that was read as Latin-1.
    """
    text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), unit)
    with suppress(UnicodeError):
        text = text.encode("latin-1").decode("utf-8")
    folded = _folded(text)
    singular = folded.removesuffix("(s)") if folded.endswith("(s)") else folded.removesuffix("s")
    return _MILLIMETRES.get(folded, _MILLIMETRES.get(singular))
