"""`python -m imagine.cli` does what `imagine-me` does."""

import sys

from imagine.cli import main

if __name__ == "__main__":  # a worker process imports this file, and must not serve again
    sys.exit(main())
