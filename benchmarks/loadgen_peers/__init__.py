"""Load generators beside each other: the server with known delays, and one file per generator.

``server``        the scripted server, which stamps each token it sends; ``truth`` what it says of a run
``scenario``      what is asked of every generator
``run``           starts a generator, and its processor time
``ours``, ``aiperf``, ``guidellm``, ``plain_locust``   the generators; ``plain_locustfile`` is the last one's
"""
