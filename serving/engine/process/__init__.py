"""An engine in a process of its own, behind the same contract.

For engines whose ``step`` holds Python's global lock while it computes: beside one, the threads that
receive requests and send answers would stand still. ``engine.py`` is the near end, ``worker.py`` the
program that runs the engine, ``messages.py`` what they say to each other, ``front_end.py`` what the near
end's process does without.
"""
