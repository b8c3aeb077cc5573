/// From a photo to the network's input, exactly as vitexport does it.
///
/// RGB bytes -> resize (Pillow's antialiased filters) -> centre crop -> float32 / 255 -> (x - mean) / std -> NCHW.
/// `fit` says how a photo of another shape is resized: `crop` scales it until it covers `resize`, `squash` stretches it
/// to exactly that. The centre crop then takes `size` out of either.
public struct Preprocessing: Equatable, Sendable {
    public enum Interpolation: String, Sendable { case nearest, bilinear, bicubic, lanczos }
    public enum Fit: String, Sendable { case crop, squash }
    /// How an odd margin is halved: torchvision rounds half to even, transformers rounds down.
    public enum CropRounding: String, Sendable { case halfEven, floor }

    public let size: Size
    /// One for each of red, green and blue, of pixels in 0...1.
    public let mean: [Float]
    public let std: [Float]
    public let interpolation: Interpolation
    public let fit: Fit
    /// What is resized to before the crop.
    public let resize: Size
    public let cropRounding: CropRounding

    public init(
        size: Size, mean: [Float], std: [Float], interpolation: Interpolation, fit: Fit, resize: Size,
        cropRounding: CropRounding
    ) {
        self.size = size
        self.mean = mean
        self.std = std
        self.interpolation = interpolation
        self.fit = fit
        self.resize = resize
        self.cropRounding = cropRounding
    }

    /// The photo resized and cropped to `size`: what a package that takes a picture takes.
    public func fitted(_ photo: Picture) -> Picture {
        let resized = resizedSize(photo.size)
        return Resampling.resample(photo, to: resized, crop: crop(of: resized), filter: interpolation)
    }

    /// The photo as the normalised (1, 3, height, width) tensor: what a package that takes a tensor takes.
    public func tensor(_ photo: Picture) -> Tensor {
        normalised(fitted(photo))
    }

    /// A picture of `size` as that tensor.
    public func normalised(_ fitted: Picture) -> Tensor {
        precondition(fitted.size == size, "a picture of \(fitted.size) is not fitted to \(size)")
        let rgb = fitted.rgb
        let area = size.height * size.width
        var values = [Float](repeating: 0, count: 3 * area)
        for channel in 0..<3 {
            for pixel in 0..<area {
                values[channel * area + pixel] = (Float(rgb[pixel * 3 + channel]) / 255 - mean[channel]) / std[channel]
            }
        }
        return Tensor(shape: [1, 3, size.height, size.width], values: values)
    }

    /// The picture that a normalised (1, 3, height, width) tensor was made of; nil where it was made of none.
    public func picture(of tensor: Tensor) -> Picture? {
        let area = size.height * size.width
        guard tensor.shape == [1, 3, size.height, size.width] else { return nil }
        var rgb = [UInt8](repeating: 0, count: 3 * area)
        for channel in 0..<3 {
            for pixel in 0..<area {
                let value = Double(tensor.values[channel * area + pixel])
                let restored = (value * Double(std[channel]) + Double(mean[channel])) * 255
                let whole = restored.rounded(.toNearestOrEven)
                guard (0...255).contains(whole), abs(restored - whole) < 0.01 else { return nil }
                rgb[pixel * 3 + channel] = UInt8(whole)
            }
        }
        return Picture(size: size, rgb: rgb)
    }

    /// `crop` keeps the aspect ratio: the side that is relatively shorter gets its target length, and the other is
    /// truncated where the target is square, as torchvision does, and rounded where it is not, as timm does.
    func resizedSize(_ photo: Size) -> Size {
        if fit == .squash { return resize }
        let whole: (Double) -> Int = resize.height == resize.width ? { Int($0) } : { Int($0.rounded(.toNearestOrEven)) }
        if resize.height * photo.width >= resize.width * photo.height {
            let width = whole(Double(resize.height * photo.width) / Double(photo.height))
            return Size(height: resize.height, width: max(resize.width, width))
        }
        let height = whole(Double(resize.width * photo.height) / Double(photo.width))
        return Size(height: max(resize.height, height), width: resize.width)
    }

    func crop(of resized: Size) -> Crop {
        Crop(top: halved(resized.height - size.height), left: halved(resized.width - size.width), size: size)
    }

    private func halved(_ margin: Int) -> Int {
        switch cropRounding {
        case .floor: margin >> 1
        case .halfEven: Int((Double(margin) / 2).rounded(.toNearestOrEven))
        }
    }
}

/// A window of a resized photo, in its pixels.
struct Crop {
    let top: Int
    let left: Int
    let size: Size
}
