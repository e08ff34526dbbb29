"""Reading and writing of pydantic models as JSON files."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from autoseg.core.atomic import write_text
from autoseg.core.errors import PlanError

Model = TypeVar("Model", bound=BaseModel)


def save_model(value: BaseModel, path: Path) -> None:
    """Write a model as JSON, atomically."""
    write_text(path, value.model_dump_json(indent=2) + "\n")


def load_model(model: type[Model], path: Path, if_missing: str, if_wrong: str) -> Model:
    """Read a model from a JSON file.

    Raises ``PlanError`` if the file is missing or malformed. The message names up to five faults and ends with the
    instruction ``if_missing`` or ``if_wrong``.
    """
    try:
        return model.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PlanError(f"{path}: no such file, expected a {model.__name__.lower()}. {if_missing}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: found a file that cannot be read ({error}), expected JSON. {if_wrong}") from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors()[:5])
        raise PlanError(
            f"{path}: found {faults}, expected a {model.__name__.lower()} as autoseg writes it. {if_wrong}"
        ) from error
