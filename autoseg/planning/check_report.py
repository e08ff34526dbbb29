"""Everything that the check of a data set found: files, folds and promises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from autoseg.core.errors import DatasetError, Fault
from autoseg.inspection.integrity import FoldGap, IntegrityReport
from autoseg.inspection.statements import PromiseReport


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What ``--check-only`` reports."""

    integrity: IntegrityReport
    """Of the files: faults, warnings, how much is annotated."""
    fold_gaps: tuple[FoldGap, ...] = ()
    """Classes that a fold cannot learn, or cannot be validated on."""
    promises: PromiseReport | None = None
    """Of annotation_protocol; None where it could settle nothing."""

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What must be mended before planning: of dataset.json, then of files, then of promises."""
        return (*self.integrity.faults, *(() if self.promises is None else self.promises.faults))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What can be used but is probably not wanted, one line each."""
        promised = () if self.promises is None else self.promises.warnings
        return (*self.integrity.warnings, *map(str, self.fold_gaps), *promised)

    def raise_if_faulty(self) -> None:
        """Raise ``DatasetError`` with all faults, if there are any."""
        if self.faults:
            raise DatasetError(self.faults)

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        promises = {} if self.promises is None else {"promises": self.promises.as_json()}
        return self.integrity.as_json() | {"fold_gaps": [str(gap) for gap in self.fold_gaps]} | promises
