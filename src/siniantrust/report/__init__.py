"""One self-contained HTML page from the JSON that the stages wrote."""

from siniantrust.report._page import write_report
from siniantrust.report._read import ReportError

__all__ = ["ReportError", "write_report"]
