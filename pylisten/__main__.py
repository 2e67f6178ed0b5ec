"""``python -m pylisten`` is the command ``pylisten``."""

import sys

from pylisten.cli import main

if __name__ == "__main__":
    sys.exit(main())
