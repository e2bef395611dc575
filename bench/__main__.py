"""`python -m bench`: every measurement of the project."""

from bench.same_memory import start_again

if __name__ == "__main__":
    start_again()  # before all the rest is imported
    from bench.cli import main

    main()
