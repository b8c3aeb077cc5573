// What the tests use of Image I/O: see CoreVideo.swift.
@_exported import CoreGraphics
@_exported import CoreVideo

public final class CGImageSource {}
public func CGImageSourceCreateWithURL(_ url: CFURL, _ options: CFDictionary?) -> CGImageSource? { fatalError() }
public func CGImageSourceCreateImageAtIndex(_ source: CGImageSource, _ index: Int, _ options: CFDictionary?) -> CGImage? {
    fatalError()
}
