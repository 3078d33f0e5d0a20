"""``python -m bench``: what a machine can do, what the service makes of it, and how the service behaves under load.

A busy machine slows down what is measured while it is busy. So only ratios mean much, and best those of things that
take turns: ways of running a session, of decoding, and service, limit and plain server.
"""
