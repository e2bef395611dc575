"""`python -m export`."""

import sys

from glmserve.system.missing_package import not_installed

try:
    from export.cli import main
except ModuleNotFoundError as error:
    sys.exit(not_installed(error))

main()
