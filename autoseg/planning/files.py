"""Read and write dataset_fingerprint.json, plans.json and annotation_promises.json."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from autoseg.core.atomic import write_text
from autoseg.core.errors import PlanError
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.plan import Plan
from autoseg.dataset.estimates import PromiseEstimates
from autoseg.planning.plan_check import plan_faults

PLAN_FILE = "plans.json"
FINGERPRINT_FILE = "dataset_fingerprint.json"
PLANNING = "autoseg_plan_and_preprocess DATASET"
"""What messages say where the command line that makes the files is not known."""

Model = TypeVar("Model", bound=BaseModel)


def save_plan(plan: Plan, path: Path) -> None:
    """Write a plan as JSON, atomically."""
    write_text(path, plan.model_dump_json(indent=2) + "\n")


def load_plan(path: Path, command: str = PLANNING) -> Plan:
    """Read a plan; raise ``PlanError`` if the file is missing, malformed or cannot work, naming what is wrong in it.

    ``command`` is what plans the data set, for the message.
    """
    plan = _load(Plan, path, f"Plan again: {command}", f"Correct it, or plan anew: {command} --replan")
    faults = plan_faults(plan, str(path))
    if faults:
        advice = f"To put all back: {command} --replan"
        raise PlanError("\n".join([*map(str, faults[:-1]), f"{faults[-1]} {advice}"]))
    return plan


def save_fingerprint(fingerprint: Fingerprint, path: Path) -> None:
    """Write a fingerprint as JSON, atomically."""
    write_text(path, fingerprint.model_dump_json(indent=2) + "\n")


def load_fingerprint(path: Path, command: str = PLANNING) -> Fingerprint:
    """Read a fingerprint; raise ``PlanError`` if the file is missing or malformed, naming what is wrong in it."""
    return _load(Fingerprint, path, f"Plan again: {command}", f"Delete it and plan again: {command}")


def save_promises(estimates: PromiseEstimates, path: Path) -> None:
    """Write what was estimated of the promises as JSON, atomically."""
    write_text(path, estimates.model_dump_json(indent=2) + "\n")


def load_promises(path: Path) -> PromiseEstimates:
    """Read estimates; raise ``PlanError`` if the file is missing or malformed, naming what is wrong in it."""
    return _load(PromiseEstimates, path, f"Plan again: {PLANNING}", f"Delete it and plan again: {PLANNING}")


def _load(model: type[Model], path: Path, if_missing: str, if_wrong: str) -> Model:
    try:
        return model.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PlanError(f"{path}: found no such file, expected a {model.__name__.lower()}. {if_missing}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: found a file that cannot be read ({error}), expected JSON. {if_wrong}") from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors()[:5])
        raise PlanError(
            f"{path}: found {faults}, expected a {model.__name__.lower()} as autoseg writes it. {if_wrong}"
        ) from error
