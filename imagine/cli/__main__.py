"""`python -m imagine.cli` does what `imagine-me` does."""

import sys

from imagine.cli import main

sys.exit(main())
