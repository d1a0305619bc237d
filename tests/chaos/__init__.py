"""Real sites on loopback under faults drawn from a seed, and an auditor that reads what every one of them holds.

`python -m chaos` with `tests` on the path plays seeds (`make chaos`); docs/faults.md says what is done and how judged.
"""
