"""What measures speed and memory: ``python -m benchmarks.NAME``."""

import ditr  # noqa: F401  (before torch: it says how torch's threads wait)
