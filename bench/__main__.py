"""`python -m bench`: every measurement of the project."""

from bench.cli import main

if __name__ == "__main__":
    main()
