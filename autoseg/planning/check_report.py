"""The report of ``autoseg_plan_and_preprocess --check-only``: files, folds and annotation protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from autoseg.core.errors import DatasetError, Fault
from autoseg.inspection.integrity import IntegrityReport
from autoseg.inspection.statements import PromiseReport
from autoseg.planning.strata import FoldGap


@dataclass(frozen=True, slots=True)
class CheckReport:
    """Result of the check of a data set."""

    integrity: IntegrityReport
    """Report on the files: faults, warnings, annotated share."""
    fold_gaps: tuple[FoldGap, ...] = ()
    """Classes that a fold cannot learn, or cannot be validated on."""
    promises: PromiseReport | None = None
    """Report on ``annotation_protocol``; None if the protocol can narrow no label set."""

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Faults that must be corrected before planning: of dataset.json, of the files, then of the protocol."""
        return (*self.integrity.faults, *(() if self.promises is None else self.promises.faults))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings, one line each: the data can be used, but the result is probably not wanted."""
        of_protocol = () if self.promises is None else self.promises.warnings
        return (*self.integrity.warnings, *map(str, self.fold_gaps), *of_protocol)

    def raise_if_faulty(self) -> None:
        """Raise ``DatasetError`` with all faults; do nothing if there are none."""
        if self.faults:
            raise DatasetError(self.faults)

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        promises = {} if self.promises is None else {"promises": self.promises.as_json()}
        return self.integrity.as_json() | {"fold_gaps": [str(gap) for gap in self.fold_gaps]} | promises
