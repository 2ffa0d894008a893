"""Scans of what would be deployed, by tools in an environment of their own: see `make audit`."""
