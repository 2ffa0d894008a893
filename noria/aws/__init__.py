"""Adapters: the only place that speaks to AWS. Each is a dataclass around one boto3 client and one resource."""
