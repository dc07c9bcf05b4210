"""lightasr: which encoder gives the best word error rate for what it costs?"""

from __future__ import annotations

import os

# OpenMP's idle threads spin for milliseconds after each of torch's operations, on cores that our
# own threads (Numba's kernels, loaders of batches) need. So long a spin costs torch no speed;
# OpenMP reads it once, when torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
