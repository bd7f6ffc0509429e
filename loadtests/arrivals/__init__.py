"""When requests are sent in an open loop: on a schedule that does not wait for answers.

``rate.py`` is the rate over the run (flat, ramp, steps, spike), ``process.py`` the gaps between arrivals at
a rate of one (constant, Poisson, gamma), ``trace.py`` reads times from a file. ``schedule.py`` makes one list
of absolute times from them before the run begins, the same in every process of it. ``dispatcher.py`` hands
each arrival to a free user when it is due. In a closed loop none of this is used.
"""
