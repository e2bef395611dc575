"""`python -m bench`: every measurement of the project."""

from bench.cli import main
from bench.same_memory import start_again

if __name__ == "__main__":
    start_again()
    main()
