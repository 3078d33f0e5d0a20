"""The HTTP door: requests in, answers and problems out."""
