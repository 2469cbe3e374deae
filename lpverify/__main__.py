"""``python -m lpverify``: the command line."""

import sys

from lpverify.cli import main

sys.exit(main())
