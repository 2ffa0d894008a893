"""whylogs: a profile of each file. Comparing them needs its viz extra and no time beside this."""

import whylogs

from benchmarks.profile.peers.columns import FEATURES
from benchmarks.profile.peers.frames import frames

views = [whylogs.log(pandas=frame).view() for frame in frames()]
print(sum(all(name in view.get_columns() for view in views) for name in FEATURES))
