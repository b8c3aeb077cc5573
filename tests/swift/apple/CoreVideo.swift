// What the wrapper uses of Core Video, declared as Apple documents it, so that its calls can be type-checked elsewhere.
import Foundation

public typealias CFDictionary = [AnyHashable: Any]
public typealias CFURL = URL
public typealias CFAllocator = Int
public typealias OSType = UInt32
public typealias CVReturn = Int32
public final class CVPixelBuffer {}
public struct CVPixelBufferLockFlags: OptionSet {
    public let rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }
    public static let readOnly = CVPixelBufferLockFlags(rawValue: 1)
}
public let kCFAllocatorDefault: CFAllocator? = nil
public let kCVPixelFormatType_32BGRA: OSType = 0x4247_5241
public let kCVPixelBufferIOSurfacePropertiesKey = "IOSurfaceProperties"
public func CVPixelBufferGetPixelFormatType(_ buffer: CVPixelBuffer) -> OSType { fatalError() }
@discardableResult
public func CVPixelBufferLockBaseAddress(_ buffer: CVPixelBuffer, _ flags: CVPixelBufferLockFlags) -> CVReturn { fatalError() }
@discardableResult
public func CVPixelBufferUnlockBaseAddress(_ buffer: CVPixelBuffer, _ flags: CVPixelBufferLockFlags) -> CVReturn { fatalError() }
public func CVPixelBufferGetBaseAddress(_ buffer: CVPixelBuffer) -> UnsafeMutableRawPointer? { fatalError() }
public func CVPixelBufferGetHeight(_ buffer: CVPixelBuffer) -> Int { fatalError() }
public func CVPixelBufferGetWidth(_ buffer: CVPixelBuffer) -> Int { fatalError() }
public func CVPixelBufferGetBytesPerRow(_ buffer: CVPixelBuffer) -> Int { fatalError() }
@discardableResult
public func CVPixelBufferCreate(
    _ allocator: CFAllocator?, _ width: Int, _ height: Int, _ format: OSType, _ attributes: CFDictionary?,
    _ made: UnsafeMutablePointer<CVPixelBuffer?>
) -> CVReturn { fatalError() }
