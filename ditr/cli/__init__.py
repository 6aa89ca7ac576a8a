"""The command line. Windows has not got what the modules below import, so it is told here."""

import sys

from ditr.platforms import unsupported

if sys.platform == "win32":
    raise SystemExit(f"error: {unsupported()}")
