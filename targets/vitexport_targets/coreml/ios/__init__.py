"""A package on the iPhone or iPad that is attached to this Mac: ``vitexport bench DIR --device ios --team ID``.

Xcode's ``devicectl`` reaches the device, and coremltools' model runner, an app that it builds and signs for the
occasion, loads the package there, predicts and times itself. It was written without a Mac: tests drive it through a
stand-in for Xcode's tools, which is filed as one, and no device has run it yet.
"""
