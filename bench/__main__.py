"""`python -m bench`, from the repository's top folder."""

import sys

from bench.run import main

if __name__ == "__main__":
    sys.exit(main())
