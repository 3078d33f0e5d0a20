"""``python -m service bench``: what this machine can do, what the service makes of it, and a plain server beside it.

A busy machine slows down what is measured while it is busy, so only ratios mean much, and best those of things that
take turns: ways of running a session, of decoding, and service, offline limit and plain server.
"""
