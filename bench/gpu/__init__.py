"""``python -m bench gpu PART``: proof that a GPU runs the models right, and how fast it does, beside PyTorch.

Each part writes its report anew with each figure, so that a run that is cut off loses none. ``--device cpu`` rehearses
a part on a machine without a GPU, in small sizes: its figures say nothing of GPUs.
"""
