"""The profile engine against other libraries, on the same files in one run: `make benchmark-profile` writes RESULTS.md.

| module          | does                                                                        |
|-----------------|-----------------------------------------------------------------------------|
| `data.py`       | makes the files: real flights, resampled                                    |
| `contenders.py` | who is compared, in which environment, and what each is asked               |
| `peers/`        | the programs that are timed, and the peers' pinned packages                 |
| `measure.py`    | runs a program: time from start to end, processor time, memory              |
| `report.py`     | best times, ratios to the bare scan, and which goals were met               |
"""
