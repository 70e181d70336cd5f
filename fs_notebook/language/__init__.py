"""What the user writes, turned into a small canonical plan. No I/O."""
