"""Noria's model server against others, in one alternating run: `make benchmark-serving` writes RESULTS.md.

| module          | does                                                                        |
|-----------------|-----------------------------------------------------------------------------|
| `models.py`     | trains one model of each task with the pipeline's own steps                 |
| `contenders.py` | how each server is installed, started and asked                             |
| `peers/`        | what runs in the peers' environments, and their pinned packages             |
| `measure.py`    | starts a server, proves that it answers right, loads it with wrk            |
| `report.py`     | medians, ratios to the best peer, and which goals were met                  |
"""
