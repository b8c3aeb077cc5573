"""The one network that vitexport trains itself, and the pictures that it is examined on.

It is small enough to be committed, so that accuracy, and not parity alone, can be measured on every artifact:
:func:`vitexport.digits.pictures.held_out` is the exam, ``make digits`` makes the pupil, ``README.md`` has its marks.
"""
