"""Models on devices: knows no queue."""
