#if canImport(CoreML)
import CoreGraphics
import CoreVideo
import Foundation
import VideoToolbox

extension Picture {
    /// An image's bytes as they are, without colour management, upright as it lies; what is transparent is black.
    public init(_ image: CGImage) throws {
        let size = Size(height: image.height, width: image.width)
        // A context in the image's own colour space converts nothing; grey and CMYK images have to be.
        let own = image.colorSpace.flatMap { $0.model == .rgb ? $0 : nil }
        guard let space = own ?? CGColorSpace(name: CGColorSpace.sRGB) else {
            throw Failure.unreadable("An image of this colour space")
        }
        var rgbx = [UInt8](repeating: 0, count: size.height * size.width * 4)
        let drawn = rgbx.withUnsafeMutableBytes { bytes in
            guard
                let context = CGContext(
                    data: bytes.baseAddress, width: size.width, height: size.height, bitsPerComponent: 8,
                    bytesPerRow: size.width * 4, space: space, bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue)
            else { return false }
            context.interpolationQuality = .none
            context.draw(image, in: CGRect(x: 0, y: 0, width: size.width, height: size.height))
            return true
        }
        guard drawn else { throw Failure.unreadable("An image of \(size)") }
        self.init(size: size, rgb: rgbx.withUnsafeBufferPointer { Picture.rgb(of: $0, order: (0, 1, 2)) })
    }

    /// A frame's bytes; of another format than 32BGRA, what Video Toolbox makes of it.
    public init(_ frame: CVPixelBuffer) throws {
        guard CVPixelBufferGetPixelFormatType(frame) == kCVPixelFormatType_32BGRA else {
            var image: CGImage?
            VTCreateCGImageFromCVPixelBuffer(frame, options: nil, imageOut: &image)
            guard let image else { throw Failure.unreadable("A frame of this pixel format") }
            try self.init(image)
            return
        }
        CVPixelBufferLockBaseAddress(frame, .readOnly)
        defer { CVPixelBufferUnlockBaseAddress(frame, .readOnly) }
        guard let base = CVPixelBufferGetBaseAddress(frame) else { throw Failure.unreadable("A frame without memory") }
        let size = Size(height: CVPixelBufferGetHeight(frame), width: CVPixelBufferGetWidth(frame))
        let stride = CVPixelBufferGetBytesPerRow(frame)
        var rgb: [UInt8] = []
        rgb.reserveCapacity(size.height * size.width * 3)
        for y in 0..<size.height {
            let row = UnsafeBufferPointer(
                start: base.advanced(by: y * stride).assumingMemoryBound(to: UInt8.self), count: size.width * 4)
            rgb += Picture.rgb(of: row, order: (2, 1, 0))
        }
        self.init(size: size, rgb: rgb)
    }

    /// The same bytes as Core ML takes a picture.
    func pixelBuffer() throws -> CVPixelBuffer {
        var made: CVPixelBuffer?
        let attributes = [kCVPixelBufferIOSurfacePropertiesKey: [:] as CFDictionary] as CFDictionary
        CVPixelBufferCreate(
            kCFAllocatorDefault, size.width, size.height, kCVPixelFormatType_32BGRA, attributes, &made)
        guard let buffer = made else { throw Failure.unreadable("A picture of \(size)") }
        CVPixelBufferLockBaseAddress(buffer, [])
        defer { CVPixelBufferUnlockBaseAddress(buffer, []) }
        guard let base = CVPixelBufferGetBaseAddress(buffer) else { throw Failure.unreadable("A picture of \(size)") }
        let stride = CVPixelBufferGetBytesPerRow(buffer)
        for y in 0..<size.height {
            let row = base.advanced(by: y * stride).assumingMemoryBound(to: UInt8.self)
            for x in 0..<size.width {
                let from = (y * size.width + x) * 3
                row[x * 4] = rgb[from + 2]
                row[x * 4 + 1] = rgb[from + 1]
                row[x * 4 + 2] = rgb[from]
                row[x * 4 + 3] = 255
            }
        }
        return buffer
    }

    private static func rgb(of pixels: UnsafeBufferPointer<UInt8>, order: (Int, Int, Int)) -> [UInt8] {
        var rgb: [UInt8] = []
        rgb.reserveCapacity(pixels.count / 4 * 3)
        for pixel in Swift.stride(from: 0, to: pixels.count, by: 4) {
            rgb.append(pixels[pixel + order.0])
            rgb.append(pixels[pixel + order.1])
            rgb.append(pixels[pixel + order.2])
        }
        return rgb
    }
}
#endif
