"""A module whose first import waits to be killed, if there is a folder to note the process in."""

from __future__ import annotations

import os
import time
from pathlib import Path

if (folder := os.environ.get("WAITS_IN")) and not any(Path(folder).iterdir()):
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(60)
