"""``lpverify`` and ``python -m lpverify``: the command line."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line of this process and return the exit code."""
    try:
        from lpverify.cli import main as run
    except KeyboardInterrupt:
        print("lpverify: error: interrupted", file=sys.stderr)
        return 130
    return run()


if __name__ == "__main__":
    sys.exit(main())
