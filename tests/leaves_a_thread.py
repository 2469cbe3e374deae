"""A module that no process should be forked after: importing it leaves a thread behind."""

from __future__ import annotations

import threading

threading.Thread(target=threading.Event().wait, daemon=True).start()
