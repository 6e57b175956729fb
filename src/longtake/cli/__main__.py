"""`python -m longtake.cli`, for launchers that start modules."""

from longtake.cli import main

if __name__ == "__main__":
    main()
