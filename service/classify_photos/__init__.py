"""``python -m service classify``: classifies the photos that a command line names, here or on a running server."""
