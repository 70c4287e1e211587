"""`python -m culvert`: the same as the command `culvert`."""

import sys

from culvert.cli import main

if __name__ == "__main__":
    sys.exit(main())
