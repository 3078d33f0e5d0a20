"""``python -m service bench``: what this machine can do, what the service makes of it, and a plain server beside it.

All that is compared takes turns in one run, so that a busy machine slows it alike: only ratios mean much.
"""
