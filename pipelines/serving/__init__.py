"""What runs in the serving container: one file, packed into every model bundle."""
