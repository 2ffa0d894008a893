"""The pipeline for tables: prepare → train → evaluate → gate → register, one definition for every tabular model.

pipeline.py, export.py   authored offline with the SageMaker SDK, written to definition.json, reviewed and committed
steps/                   what a job runs: arguments in, files out
prepare.py train.py evaluate.py metrics.py signature.py   the work itself, as functions
"""
