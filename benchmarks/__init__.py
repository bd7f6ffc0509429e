"""Side by side with other engines, on the machine you sit at: what is measured, and with what.

    serving.py        output tokens/s, TTFT, ITL, memory and text of every peer: ``make bench-serving``
    decode_step.py    where a decode step goes, and what each fast path is worth in it
    prefill.py        the same of a prompt, by its length
    scaling.py        one engine against concurrency, lengths and instances, and what a step costs
    long_prompt.py    what a long prompt does to the streams that already run
    results/          what was measured, committed

Each peer is one file in ``serving_peers``.
"""
