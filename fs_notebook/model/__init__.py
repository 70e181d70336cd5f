"""Training sets that are right at each label's time, and what a feature brings a model."""
