"""What a load test asks: every request is decided by the seed and its place in the run.

``settings.py`` has the settings and ``checks.py`` their ranges. Prompts come from ``jsonl.py``,
``sharegpt.py``, ``packages.py`` or ``synthetic.py``, shared system prompts from ``prefixes.py``;
``source.py`` chooses. ``workload.py`` says what is asked at each place: prompt, output length, seed, pause.
"""
