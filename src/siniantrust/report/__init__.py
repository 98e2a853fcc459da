"""One self-contained HTML page from the JSON that the stages wrote."""

from siniantrust.report._load import ReportError
from siniantrust.report._page import write_report

__all__ = ["ReportError", "write_report"]
