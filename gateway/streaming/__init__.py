"""Everything that writes to a client's socket or watches it.

Why we write to sockets ourselves: waking a request's thread for each token made it take Python's lock and the processor
from all the others. With 256 streams of 20 tokens a second each, that cost half as much processor time again, and the
threads held one another up. So the thread that reads Triton's streams writes a token straight to its client.

Why we watch sockets: while nothing is written to a client, the web server cannot see that it left, and its answer would
be generated to the end.
"""
