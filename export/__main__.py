"""`python -m export`."""

import sys

from glmserve.packages import not_installed

try:
    from export.cli import main
except ModuleNotFoundError as error:
    sys.exit(not_installed(error))

main()
