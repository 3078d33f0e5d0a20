"""``python -m bench gpu PART`` checks that a GPU runs a model right, and compares its speed with PyTorch's.

Each part rewrites its report after each figure, so that an interrupted run loses no figure. ``--device cpu`` rehearses
a part with small sizes on a machine without a GPU. A rehearsal's figures say nothing about GPUs.
"""
