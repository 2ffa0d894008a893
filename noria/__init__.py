"""Noria's rules: pure Python, no AWS. Adapters are in `noria.aws`, the command in `noria.cli`."""
