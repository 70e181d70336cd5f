"""Bootstrap, hand-over, the loop, and the detached runner."""
