"""whylogs: a profile of each file. Comparing them needs its viz extra and no time beside this."""

import whylogs
from columns import FEATURES
from frames import frames

views = [whylogs.log(pandas=frame).view() for frame in frames()]
print(sum(all(name in view.get_columns() for view in views) for name in FEATURES))
