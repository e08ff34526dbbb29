"""Collection of the faults and warnings of a file, so that a user sees all of them at once; and text helpers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from autoseg.core.errors import DatasetError, Fault

MAX_NAMED = 5


@dataclass
class Findings:
    """Faults and warnings of one file, in the order of reading."""

    file: str
    """Name of the file in the messages."""
    faults: list[Fault] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def fault(self, key: str, *, found: str, expected: str, fix: str) -> None:
        """Add a fault at ``key`` of the file; "" stands for the whole file."""
        self.faults.append(Fault(self._where(key), found, expected, fix))

    def warn(self, key: str, text: str) -> None:
        """Add a warning about ``key``: the result is still correct, but probably not wanted."""
        self.warnings.append(f"{self._where(key)}: {text}")

    def raise_if_faulty(self) -> None:
        """Raise ``DatasetError`` with all faults, if there are any."""
        if self.faults:
            raise DatasetError(self.faults)

    def _where(self, key: str) -> str:
        return f"{self.file}: {key}" if key else self.file


def shown(value: object, limit: int = 80) -> str:
    """Return the ``repr`` of ``value`` as one line of at most ``limit`` characters, for a message."""
    text = " ".join(repr(value).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def listed(names: Iterable[object], limit: int = MAX_NAMED) -> str:
    """Return the first ``limit`` names, separated by commas, and the number of the others; "none" without names."""
    everything = [str(name) for name in names]
    more = f" and {len(everything) - limit} more" if len(everything) > limit else ""
    return ", ".join(everything[:limit]) + more if everything else "none"


def counted(number: int, noun: str) -> str:
    """Return ``"1 case"`` or ``"3 cases"``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def grouped_by_text(remarks: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return one line per different remark, which starts with its cases. ``remarks``: case -> remarks."""
    by_text: dict[str, list[str]] = {}
    for case, texts in remarks.items():
        for text in dict.fromkeys(texts):
            by_text.setdefault(text, []).append(case)
    return [
        f"{f'case {cases[0]!r}' if len(cases) == 1 else f'{len(cases)} cases ({listed(cases)})'}: {text}"
        for text, cases in by_text.items()
    ]


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.7) -> str:
    """Return " Did you mean 'x'?" for the most similar word of ``known``; "" if none has similarity ``cutoff``."""
    by_lower = {item.casefold(): item for item in known}
    near = get_close_matches(word.strip().casefold(), by_lower, n=1, cutoff=cutoff)
    return f" Did you mean {by_lower[near[0]]!r}?" if near else ""
