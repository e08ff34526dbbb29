"""Reading and writing of dataset_fingerprint.json and plans.json."""

from __future__ import annotations

from pathlib import Path

from autoseg.core.errors import PlanError
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.json_models import load_model, save_model
from autoseg.core.plan import Plan
from autoseg.dataset.commands import PLANNING
from autoseg.planning.plan_check import plan_faults

PLAN_FILE = "plans.json"
FINGERPRINT_FILE = "dataset_fingerprint.json"


def save_plan(plan: Plan, path: Path) -> None:
    """Write a plan as JSON, in one step: a killed process leaves the old file or the new one."""
    save_model(plan, path)


def load_plan(path: Path, command: str = PLANNING) -> Plan:
    """Read and check a plan.

    Parameters
    ----------
    path
        plans.json.
    command
        Command that plans the data set, shown in the message.

    Raises
    ------
    PlanError
        If the file is missing or malformed, or the plan cannot work. The message names every fault.
    """
    plan = load_model(Plan, path, f"Plan again: {command}", f"Correct it, or plan anew: {command} --replan")
    faults = plan_faults(plan, str(path))
    if faults:
        advice = f"To put all back: {command} --replan"
        raise PlanError("\n".join([*map(str, faults[:-1]), f"{faults[-1]} {advice}"]))
    return plan


def save_fingerprint(fingerprint: Fingerprint, path: Path) -> None:
    """Write a fingerprint as JSON, in one step: a killed process leaves the old file or the new one."""
    save_model(fingerprint, path)


def load_fingerprint(path: Path, command: str = PLANNING) -> Fingerprint:
    """Read a fingerprint; raise ``PlanError`` that names the fault if the file is missing or malformed."""
    return load_model(Fingerprint, path, f"Plan again: {command}", f"Delete it and plan again: {command}")
