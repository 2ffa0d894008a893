"""What parliament finds in the policies on standard input; run by the interpreter of the audit's own environment."""

import json
import sys

from parliament import analyze_policy_string  # type: ignore[import-not-found] # is in that environment alone

found = []
for name, document in json.load(sys.stdin).items():
    policy = analyze_policy_string(json.dumps(document))
    found += [(name, finding.issue, finding.detail) for finding in policy.findings]
json.dump(found, sys.stdout, default=str)
