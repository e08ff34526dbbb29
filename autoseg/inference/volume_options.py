"""Options of the prediction of a volume."""

from __future__ import annotations

from dataclasses import dataclass, field

from autoseg.core.errors import ConfigError
from autoseg.inference.volume_units import Part
from autoseg.io.write_stored import STORED_ENDINGS

ZARR = ".zarr"


@dataclass(frozen=True, slots=True)
class VolumeOptions:
    """How a volume is predicted."""

    is_forced: bool = False
    """Whether an image file is predicted as a volume, too."""
    memory_gb: float | None = None
    """Memory of the process in all (10**9 bytes); None is half of what is free."""
    part: Part = field(default_factory=Part)
    """The part that this process predicts."""
    write_as: str = ZARR
    """Ending of the label map: that of the Zarr, or of a file that is made of it at the end."""
    is_helping: bool = False
    """Whether another process records the prediction, and concludes it when all parts are done."""

    def __post_init__(self) -> None:
        if self.write_as not in (ZARR, *STORED_ENDINGS):
            known = ", ".join((ZARR, *STORED_ENDINGS))
            raise ConfigError(f"--write-as: found {self.write_as!r}, expected one of {known}. Leave it out for .zarr.")
        if self.memory_gb is not None and not self.memory_gb > 0:
            raise ConfigError(f"--memory-gb: found {self.memory_gb:g}, expected more than 0. Leave it out.")
