"""A file on the Android device that is attached to this machine: ``vitexport bench DIR --device adb``.

``adb`` and LiteRT's ``benchmark_model`` are the user's. What ran is what the device says of itself: one that names no
model or no build is refused, and an emulator is filed as the stand-in that it is.
"""
