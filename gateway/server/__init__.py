"""Everything that leans on gunicorn's internals.

What gunicorn does not offer, and what it cost: every system call gives Python's lock to another thread and waits to get
it back, so the worker makes fewer of them for each request. gunicorn bounds neither a request's head nor a slow reader,
closes connections on its main thread (up to two seconds each, while nobody is accepted), goes on listening after it was
told to end, and sends a response's head in a packet of its own. A new version of gunicorn must be checked against this
package, and against no other.
"""
