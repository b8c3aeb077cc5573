/// Floats in C order.
public struct Tensor: Equatable, Sendable {
    public let shape: [Int]
    public let values: [Float]

    /// `values` must be as many as `shape` says.
    public init(shape: [Int], values: [Float]) {
        precondition(shape.reduce(1, *) == values.count, "a tensor of shape \(shape) does not hold \(values.count) values")
        self.shape = shape
        self.values = values
    }
}

/// Height x width in pixels, in that order everywhere.
public struct Size: Hashable, Codable, Sendable, CustomStringConvertible {
    public let height: Int
    public let width: Int

    public init(height: Int, width: Int) {
        self.height = height
        self.width = width
    }

    public var description: String { "\(height)x\(width)" }
}

/// Rows of RGB bytes.
public struct Picture: Equatable, Sendable {
    public let size: Size
    public let rgb: [UInt8]

    /// `rgb` holds height x width x 3 bytes.
    public init(size: Size, rgb: [UInt8]) {
        precondition(size.height * size.width * 3 == rgb.count, "a picture of \(size) does not hold \(rgb.count) bytes")
        self.size = size
        self.rgb = rgb
    }
}
