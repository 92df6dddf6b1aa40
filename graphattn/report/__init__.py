"""Recorded results as tables, pictures and one self-contained page. Nothing here trains."""

from graphattn.report.page import write_page
from graphattn.report.results import write_results
from graphattn.report.tables import comparison, data_sets, overview, so_far

__all__ = ["comparison", "data_sets", "overview", "so_far", "write_page", "write_results"]
