"""Types of arrays, and the letters that denote their shapes.

Shape legend, used in all of autoseg: **B** batch, **C** channel, **K** class, **R** region head, **H** head (K classes
or R regions: the rows of the result table), **O** output of the network, **N** label-set code, **M** ensemble member,
***S** spatial axes (z, y, x) of a case, ***P** spatial axes of a patch (y, x in 2-D configurations).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Shape3 = tuple[int, int, int]
Float32Array = NDArray[np.float32]
CodeArray = NDArray[np.unsignedinteger]
BoolArray = NDArray[np.bool_]
LabelMap = NDArray[np.unsignedinteger]
"""File values, (z, y, x) for a whole case."""
