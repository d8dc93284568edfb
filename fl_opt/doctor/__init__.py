"""What is wrong with this machine's set-up, and how to mend it: ``fl-opt doctor``."""

from fl_opt.doctor.check import Check, Status, worst
from fl_opt.doctor.run import examine

__all__ = ["Check", "Status", "examine", "worst"]
