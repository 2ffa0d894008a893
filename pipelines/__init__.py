"""The training graph, its steps, and the inference code that travels inside a model bundle."""
