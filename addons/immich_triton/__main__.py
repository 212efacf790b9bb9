"""``python -m immich_triton``: the command where it is not installed as a script."""

import sys

from immich_triton.cli.main import main

sys.exit(main())
