"""``trimaran clean-data``: rows -> the rows worth training on, and a report of the others.

``words``            text -> words, with a blank spaCy pipeline
``quality``          length, scripts, symbols, repetition of one row
``row_text``         what a row asks and what it answers
``duplicates``       rows that were there before
``near_duplicates``  rows that are nearly an earlier one (MinHash)
``decontamination``  rows that share a long run of words with an evaluation set
``judge``            all of these on one row after the other
``report``           what was dropped and why, as JSON, Markdown and text
``run``              the command: reads, judges, writes
"""
