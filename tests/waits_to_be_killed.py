"""A module whose import waits to be killed, if a folder to note the process in is there."""

from __future__ import annotations

import os
import time
from pathlib import Path

if folder := os.environ.get("WAITS_IN"):
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(60)
