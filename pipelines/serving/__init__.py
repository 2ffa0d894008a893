"""What answers requests.

inference.py   what a request means, and AWS's scikit-learn container: travels in every bundle
server.py      Noria's model server, with metrics.py and parquet.py; __main__.py starts its workers
"""
