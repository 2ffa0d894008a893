"""Game day: the local cloud is broken in an order drawn from a seed, and what notices and mends it is timed.

score.py       what came of each break, and what counts as good
breaks.py      the breaks: what is done, who must notice, what must mend it
flood.py       ten thousand uploads at once
__main__.py    python -m local.gameday
"""
