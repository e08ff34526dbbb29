"""The file of a model folder with the settings by which objects are parted."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from autoseg.core.errors import ModelError
from autoseg.tasks.separation import SeparationSettings

SEPARATION_FILE = "separation.json"


class SeparationTuning(BaseModel):
    """The validation cases on which settings were tuned, and what they gained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    AP50: float
    """Average precision of the settings at an overlap of 0.5, over the objects of all cases."""
    AP50_of_defaults: float
    n_objects: int
    """Reference objects of all cases."""
    cases: tuple[str, ...]
    """``fold_<k>/<case>``."""


class SeparationFile(SeparationSettings):
    """Content of ``SEPARATION_FILE``."""

    tuning: SeparationTuning | None = None
    """None: a user wrote the settings."""

    @property
    def settings(self) -> SeparationSettings:
        """The settings alone."""
        return SeparationSettings(**self.model_dump(exclude={"tuning"}))


def read_separation(model_folder: Path) -> SeparationSettings:
    """Return the settings of a model folder, the defaults without a file; raises as :func:`read_separation_file`."""
    content = read_separation_file(model_folder)
    return SeparationSettings() if content is None else content.settings


def read_separation_file(model_folder: Path) -> SeparationFile | None:
    """Return the content of ``SEPARATION_FILE`` of a model folder; None if there is no such file.

    Raises ``ModelError`` if it does not hold settings.
    """
    path = model_folder / SEPARATION_FILE
    try:
        return SeparationFile.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors())
        fields = ", ".join(SeparationSettings.model_fields)
        raise ModelError(
            f"{path}: found wrong entries ({wrong}), expected a JSON object with {fields}. Correct or remove the file."
        ) from error
