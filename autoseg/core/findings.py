"""Collect what is wrong while reading on, so that a user sees every fault of a file at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from autoseg.core.errors import DatasetError, Fault

MAX_NAMED = 5


@dataclass
class Findings:
    """Faults and warnings of one file, in the order in which they were met."""

    file: str
    """Name of the file as the messages give it."""
    faults: list[Fault] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def fault(self, key: str, *, found: str, expected: str, fix: str) -> None:
        """Note a fault at ``key`` of the file (the whole file if empty)."""
        self.faults.append(Fault(self._where(key), found, expected, fix))

    def warn(self, key: str, text: str) -> None:
        """Note something that still gives a right result but is probably not wanted."""
        self.warnings.append(f"{self._where(key)}: {text}")

    def raise_if_faulty(self) -> None:
        """Raise ``DatasetError`` with all faults, if there are any."""
        if self.faults:
            raise DatasetError(self.faults)

    def _where(self, key: str) -> str:
        return f"{self.file}: {key}" if key else self.file


def shown(value: object, limit: int = 80) -> str:
    """Return ``value`` as one line of at most ``limit`` characters, for a message."""
    text = " ".join(repr(value).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def listed(names: Iterable[object], limit: int = MAX_NAMED) -> str:
    """Join the first ``limit`` names with commas and say how many more there are; "none" if there are none."""
    everything = [str(name) for name in names]
    more = f" and {len(everything) - limit} more" if len(everything) > limit else ""
    return ", ".join(everything[:limit]) + more if everything else "none"


def counted(number: int, noun: str) -> str:
    """Return ``"1 case"`` or ``"3 cases"``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def grouped_by_text(remarks: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return one line per remark (case -> remarks) that names the cases to which it applies."""
    by_text: dict[str, list[str]] = {}
    for case, texts in remarks.items():
        for text in dict.fromkeys(texts):
            by_text.setdefault(text, []).append(case)
    return [
        f"{f'case {cases[0]!r}' if len(cases) == 1 else f'{len(cases)} cases ({listed(cases)})'}: {text}"
        for text, cases in by_text.items()
    ]


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.7) -> str:
    """Return " Did you mean 'x'?" for the nearest known word, else an empty string."""
    by_lower = {item.casefold(): item for item in known}
    near = get_close_matches(word.strip().casefold(), by_lower, n=1, cutoff=cutoff)
    return f" Did you mean {by_lower[near[0]]!r}?" if near else ""
