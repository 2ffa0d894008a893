"""The cloud, as CDK stacks: foundation and reactions once, training, serving and monitoring per model."""
