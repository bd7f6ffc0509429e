"""The report: one HTML file with its charts inside, for light and dark, readable offline.

``page.py`` fills the template ``page.html`` with texts (``texts.py``) and charts (``charts.py``,
``server_charts.py``). The charts are SVG of our own (``svg.py``, ``scale.py``; ``distribution.py``,
``timeline.py``, ``bars.py``): a plotting library's would bring its own colours and fonts, where these follow
the page's theme, have tooltips, and take some kilobytes. ``markdown.py`` and ``junit.py`` are the report for
a pull request and a CI.
"""
