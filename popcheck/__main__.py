"""``python -m popcheck``, where the command is not on the path."""

import sys

from popcheck.main import main

sys.exit(main())
