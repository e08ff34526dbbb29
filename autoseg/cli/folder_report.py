"""Output of the commands that make a folder of label maps from other folders."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.cli import common
from autoseg.core.findings import counted

if TYPE_CHECKING:
    from autoseg.evaluation.prediction_folder import FolderReport


def conclude(log: logging.Logger, report: FolderReport, inputs: Path, output: Path, did: str, *, as_json: bool) -> None:
    """Report the result; raise ``IncompleteError`` if a case failed.

    ``inputs`` is the folder that the label maps were compared with, ``did`` a participle, such as "combined".
    """
    if as_json:
        common.print_json({"output": str(output), "changed_voxels": dict(report.done), "failed": dict(report.failed)})
    changed = sum(number > 0 for number in report.done.values())
    written = counted(len(report.done), "label map")
    log.info("%s: %s %s, of which %d differ from those of %s", output, written, did, changed, inputs)
    if report.failed:
        lines = "\n  ".join(f"{case}: {reason}" for case, reason in report.failed.items())
        raise common.IncompleteError(f"{counted(len(report.failed), 'case')} could not be {did}:\n  {lines}")
