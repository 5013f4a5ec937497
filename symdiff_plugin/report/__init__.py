"""Our runs, the paper's tables with them beside the paper's numbers, plots and one HTML page."""
