"""The same cloud on a laptop: MiniStack, and the SageMaker that it lacks."""
