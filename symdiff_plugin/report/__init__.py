"""The paper's tables with our runs beside the paper's numbers, plots and one HTML page."""
