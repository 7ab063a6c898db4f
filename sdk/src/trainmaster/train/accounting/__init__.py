"""What a job's ranks say to each other: how much, how long they wait for it, and metrics of both.

`groups` counts torch's collectives, `meter` makes metrics of the sums, and `Accounting` is both for
one training.
"""

from trainmaster.train.accounting.account import Accounting

__all__ = ["Accounting"]
