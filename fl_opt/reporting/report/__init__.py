"""One page about one run or several: what they came to, and where time and bytes went."""

from fl_opt.reporting.report.csv_files import write_csv
from fl_opt.reporting.report.page import render_report, write_report
from fl_opt.reporting.report.png import write_png

__all__ = ["render_report", "write_csv", "write_png", "write_report"]
