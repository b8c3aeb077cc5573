// What the wrapper uses of Video Toolbox: see CoreVideo.swift.
import CoreGraphics
import CoreVideo

@discardableResult
public func VTCreateCGImageFromCVPixelBuffer(
    _ buffer: CVPixelBuffer, options: CFDictionary?, imageOut: UnsafeMutablePointer<CGImage?>
) -> Int32 { fatalError() }
