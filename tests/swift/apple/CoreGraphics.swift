// What the wrapper uses of Core Graphics: see CoreVideo.swift.
import Foundation

public enum CGColorSpaceModel { case rgb, monochrome, cmyk }
public final class CGColorSpace {
    public static let sRGB = "kCGColorSpaceSRGB"
    public init?(name: String) {}
    public var model: CGColorSpaceModel { fatalError() }
}
public final class CGImage {
    public var width: Int { fatalError() }
    public var height: Int { fatalError() }
    public var colorSpace: CGColorSpace? { fatalError() }
}
public enum CGImageAlphaInfo: UInt32 { case noneSkipLast = 5 }
public enum CGInterpolationQuality { case none }
public final class CGContext {
    public init?(
        data: UnsafeMutableRawPointer?, width: Int, height: Int, bitsPerComponent: Int, bytesPerRow: Int,
        space: CGColorSpace, bitmapInfo: UInt32
    ) {}
    public var interpolationQuality = CGInterpolationQuality.none
    public func draw(_ image: CGImage, in rect: CGRect) {}
}
