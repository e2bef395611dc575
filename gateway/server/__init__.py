"""Everything that leans on gunicorn's internals."""
