"""SageMaker data-capture files as rows: one JSON line per invocation, many predictions in each."""
