"""The report: one HTML file with its charts inside, for light and dark, readable offline."""
