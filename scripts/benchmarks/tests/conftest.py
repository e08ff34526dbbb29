from __future__ import annotations

import sys
from pathlib import Path

from same_logging import same_logging  # noqa: F401 (a fixture that every test uses)

sys.path.insert(0, str(Path(__file__).parents[1]))
