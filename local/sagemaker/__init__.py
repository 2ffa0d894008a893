"""A SageMaker that really runs things, beside MiniStack in the same process."""
