"""``python -m trimaran`` is ``trimaran``."""

import sys

from trimaran.cli import main

sys.exit(main())
